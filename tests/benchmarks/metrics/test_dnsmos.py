"""Windows are cut as the package cuts them, and speech is rated above noise."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pesq", reason="PESQ is not installed: it needs a C compiler")

from benchmarks.common.recordings import load
from benchmarks.metrics.dnsmos import WINDOW_SAMPLES, Dnsmos, windows

CLIP = Path(__file__).resolve().parents[3] / "demos" / "data" / "speech.flac"
SECOND = 16_000


@pytest.mark.parametrize(("seconds", "count"), [(9, 9), (9.01, 1), (10.99, 1), (11, 2), (20, 11), (5, 1), (3, 3)])
def test_a_window_begins_at_every_second_and_short_audio_is_doubled(seconds: float, count: int) -> None:
    cut = windows(np.zeros(round(seconds * SECOND), np.float32))
    assert [len(window) for window in cut] == [WINDOW_SAMPLES] * count


def test_doubled_audio_repeats_from_its_start() -> None:
    audio = np.arange(8 * SECOND, dtype=np.float32) / (8 * SECOND)
    first, second = windows(audio)[:2]
    assert (first[: len(audio)] == audio).all() and (first[len(audio) :] == audio[: WINDOW_SAMPLES - len(audio)]).all()
    assert (second[: len(audio) - SECOND] == audio[SECOND:]).all()


@pytest.mark.slow
def test_speech_is_rated_above_the_same_speech_in_noise() -> None:
    for package in ("onnxruntime", "speechmos"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    dnsmos, clean_audio = Dnsmos(), load(CLIP)
    noise = np.random.default_rng(0).standard_normal(len(clean_audio)).astype(np.float32)
    clean, noisy = (dnsmos.rate(audio) for audio in (clean_audio, clean_audio + 0.05 * noise))
    assert all(1 <= value <= 5 for value in (*clean.values(), *noisy.values()))
    assert clean["dnsmos"] > noisy["dnsmos"] + 0.5 and clean["dnsmos_bak"] > noisy["dnsmos_bak"] + 1
