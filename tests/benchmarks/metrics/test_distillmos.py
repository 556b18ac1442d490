"""Speech is rated above the same speech in noise, without torchaudio."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pesq", reason="PESQ is not installed: it needs a C compiler")

from benchmarks.common.recordings import load
from benchmarks.metrics.distillmos import DistillMos

CLIP = Path(__file__).resolve().parents[3] / "demos" / "data" / "speech.flac"


@pytest.mark.slow
def test_speech_is_rated_above_the_same_speech_in_noise() -> None:
    pytest.importorskip("xls_r_sqa", reason="xls-r-sqa is not installed")
    network, clean = DistillMos(), load(CLIP)
    assert "torchaudio" not in sys.modules
    noise = np.random.default_rng(0).standard_normal(len(clean)).astype(np.float32)
    rated, in_noise = (network.rate(audio)["distillmos"] for audio in (clean, clean + 0.05 * noise))
    assert 1 <= in_noise < rated - 0.5 and rated <= 5
    assert network.rate(clean[:1_000]) == {}
