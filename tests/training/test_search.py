"""Searched tokens describe a recording better than those of the encoder, with the decoder unchanged."""

import pytest
import torch
from transformers import NeuCodecModel

from neucodec_streaming.client.files import read_audio
from tests.conftest import ROOT
from training.loudness import loudness_loss
from training.search import searched


@pytest.mark.slow
def test_searched_tokens_sound_nearer_to_the_recording() -> None:
    torch.set_num_threads(1)
    model = NeuCodecModel.from_pretrained(ROOT / "streaming" / "assets" / "nano", dtype=torch.float32).eval()
    model.requires_grad_(False)
    speech = ROOT / "demos" / "data" / "speech.flac"
    heard, target = (read_audio(speech, rate)[: rate * 3 // 2] for rate in (16_000, 24_000))
    encoded, better = (torch.from_numpy(audio)[None] for audio in searched(model, heard, steps=40))
    assert encoded.shape == better.shape == (1, len(target))
    recorded = torch.from_numpy(target)[None]
    assert loudness_loss(better, recorded) < loudness_loss(encoded, recorded)
