"""A change at the frame rate is measured in decibels, in voiced speech alone; a copy has none."""

import numpy as np
import pytest

pytest.importorskip("pesq", reason="PESQ is not installed: it needs a C compiler")

from benchmarks.metrics.flicker import flicker, voiced_stretches

RATE = 16_000


@pytest.fixture
def vowel() -> np.ndarray:
    """Two seconds of 24 harmonics of 130 Hz, whose level varies a little at every rate."""
    time = np.arange(2 * RATE) / RATE
    wavering = 1.0 + 0.02 * np.random.default_rng(0).standard_normal(len(time) // 40).repeat(40)
    return (0.02 * wavering * sum(np.sin(2 * np.pi * 130.0 * n * time) for n in range(1, 25))).astype(np.float32)


def test_a_copy_does_not_flicker_and_level_does_not_matter(vowel: np.ndarray) -> None:
    assert flicker(vowel, vowel)["flicker_db"] == 0.0
    assert flicker(vowel, 0.1 * vowel)["flicker_db"] == pytest.approx(0.0, abs=0.1)


def test_modulation_at_the_frame_rate_counts_and_at_other_rates_does_not(vowel: np.ndarray) -> None:
    time = np.arange(len(vowel)) / RATE
    at_50, at_25 = (vowel * (1.0 + 0.2 * np.sin(2 * np.pi * hertz * time)) for hertz in (50.0, 25.0))
    assert flicker(vowel, at_50)["flicker_db"] > 6.0
    assert flicker(vowel, at_25)["flicker_db"] < 2.0


def test_unvoiced_audio_has_no_flicker() -> None:
    noise = np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 0.1
    assert voiced_stretches(noise) == []
    assert flicker(noise, noise) == {}
