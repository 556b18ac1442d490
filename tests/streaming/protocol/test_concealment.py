"""Concealment of lost tokens, with vectors that the JavaScript implementation is tested with too."""

import json
from pathlib import Path

import pytest

from neucodec_streaming.formats import PCM_FORMATS
from neucodec_streaming.protocol.concealment import MIDDLE_TOKEN, concealed, gap_tokens
from neucodec_streaming.protocol.messages import StreamFormat

VECTORS = Path(__file__).parents[2] / "data" / "concealment-vectors.json"
GAPS = json.loads(VECTORS.read_text())["gaps"]


@pytest.mark.parametrize("gap", GAPS, ids=str)
def test_gaps_are_filled_as_recorded(gap):
    assert gap_tokens(gap["before"], len(gap["tokens"]), gap["after"], gap["distance"]) == gap["tokens"]


def test_the_centre_of_a_long_gap_is_the_middle_of_the_codebook():
    assert gap_tokens(0, 40, 0)[19] == MIDDLE_TOKEN


def test_filling_a_gap_in_two_parts_equals_filling_it_at_once():
    whole = gap_tokens(0x1234, 6, MIDDLE_TOKEN)
    assert gap_tokens(0x1234, 4, MIDDLE_TOKEN) + gap_tokens(0x1234, 2, MIDDLE_TOKEN, distance=5) == whole


@pytest.mark.parametrize("name", PCM_FORMATS)
def test_lost_audio_is_silence_in_every_format(name):
    audio = StreamFormat("audio", name, 8_000)
    assert concealed(audio, b"1234", 3, b"1234") == PCM_FORMATS[name].silence * 3
