"""Pitch is found in voiced audio, kept by a copy, lost in noise, and a different pitch is detected."""

import numpy as np
import pytest

from benchmarks.metrics.pitch import periods, pitch_kept


def buzz(hz: float) -> np.ndarray:
    times = np.arange(16_000) / 16_000
    return sum(np.sin(2 * np.pi * hz * number * times) / number for number in range(1, 9)) * 0.1


@pytest.mark.parametrize("hz", [80.0, 125.0, 220.0, 350.0])
def test_a_buzz_has_its_pitch_in_every_frame(hz: float) -> None:
    strength, pitch = periods(buzz(hz))
    assert (strength > 0.95).all()
    np.testing.assert_allclose(pitch, hz, rtol=0.015)


def test_a_copy_keeps_the_pitch_but_a_shift_by_a_whole_tone_or_noise_does_not() -> None:
    noise = np.random.default_rng(0).standard_normal(16_000)
    copy, higher, lost = (pitch_kept(buzz(120.0), heard) for heard in (buzz(120.0), buzz(134.7), noise))
    assert copy["pitch"] == 1 and copy["periodicity"] > 0.95
    assert higher["pitch"] == 0 and higher["periodicity"] > 0.95
    assert lost["pitch"] < 0.2 and lost["periodicity"] < 0.6


def test_unvoiced_audio_has_no_pitch_measure() -> None:
    silence = np.zeros(16_000)
    assert pitch_kept(silence, silence) == {"pitch": None, "periodicity": None}
    assert pitch_kept(silence[:100], silence[:100])["pitch"] is None
