"""A voice is like itself, and less like itself at another pitch; mel bands are those of the training."""

from pathlib import Path

import numpy as np
import pytest
import soxr
import torch

pytest.importorskip("pesq", reason="PESQ is not installed: it needs a C compiler")

from benchmarks.common.recordings import load
from benchmarks.metrics.speaker import SpeakerEncoder, mel

CLIP = Path(__file__).resolve().parents[3] / "demos" / "data" / "speech.flac"


@pytest.mark.slow
def test_a_voice_is_most_similar_to_itself_and_less_at_another_pitch() -> None:
    pytest.importorskip("torch")
    try:
        encoder = SpeakerEncoder()
    except ImportError as error:
        pytest.skip(str(error))
    voice = load(CLIP)
    higher = soxr.resample(voice, 16_000, 12_000)
    assert encoder.likeness(voice, voice)["speaker"] == pytest.approx(1.0, abs=1e-5)
    assert encoder.likeness(voice, voice + 0.001 * np.sin(np.arange(len(voice))))["speaker"] > 0.9
    assert encoder.likeness(voice[: len(higher)], higher)["speaker"] < 0.85


def test_the_mel_bands_are_slaneys() -> None:
    time = np.arange(16_000) / 16_000
    loudest = [int(mel(np.sin(2 * np.pi * hertz * time)).mean(0).argmax()) for hertz in (200.0, 1_000.0, 4_000.0)]
    assert loudest == [2, 13, 31]  # bands of 1.1 mel; 15 mels up to 1 kHz, linear, and logarithmic above
    assert torch.isfinite(mel(np.zeros(16_000))).all()
