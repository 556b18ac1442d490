"""The STOI of a talk after a stall: skipped audio costs nothing, mangled audio does."""

import numpy as np
import pytest

from benchmarks.common.sound_room import RATE
from benchmarks.mouth_to_ear.__main__ import spoken
from benchmarks.mouth_to_ear.stall import STALL_AT_S, STALL_OVER_S, HeardTalk, kept_samples

BEGIN_S = STALL_AT_S + 1.5
SPLICES = [[300_000, 30_000], [350_000, 200], [390_000, 240]]
"""Positions and samples at 24 kHz: a skip of 1.25 s, and pitch periods after it."""


@pytest.fixture(scope="module")
def speech():
    return spoken(None, 26.0)


def talk(speech, ear, splices) -> HeardTalk:
    return HeardTalk(speech, np.pad(ear, (0, 3 * RATE)), kept_samples(speech.size, splices, RATE // 50), [], {})


def played(speech) -> np.ndarray:
    """The speech 0.4 s later without SPLICES, as a perfect client plays it: 1.25 s of silence before the skip."""
    kept = kept_samples(speech.size, SPLICES, RATE // 50)
    skip = int(np.flatnonzero(~kept)[0])
    heard = np.concatenate([np.zeros(round(0.4 * RATE)), speech[:skip], np.zeros(60_000), speech[skip:][kept[skip:]]])
    return heard.astype(np.float32)


def test_what_playback_left_out_costs_nothing(speech):
    assert talk(speech, played(speech), SPLICES).score(BEGIN_S, BEGIN_S + STALL_OVER_S) > 0.999


def test_splices_in_other_places_and_lost_audio_cost(speech):
    heard = played(speech)
    elsewhere = [[position + 20_000, samples] for position, samples in SPLICES]
    assert talk(speech, heard, elsewhere).score(BEGIN_S, BEGIN_S + STALL_OVER_S) < 0.98
    heard[17 * RATE : 18 * RATE] = 0
    assert talk(speech, heard, SPLICES).score(BEGIN_S, BEGIN_S + STALL_OVER_S) < 0.98
