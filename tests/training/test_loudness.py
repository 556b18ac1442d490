"""Loudness is heard as listeners do: what is inaudible or masked costs nothing, what was added costs more."""

import pytest
import torch
from torch import Tensor

from training.loudness import BANDS, band_powers, bark, loudness, loudness_loss

SAMPLES = 24_000


def tone(hz: float, amplitude: float = 0.1) -> Tensor:
    times = torch.arange(SAMPLES, dtype=torch.float64) / 24_000
    return (amplitude * torch.sin(2 * torch.pi * hz * times)).float()[None]


def test_the_loss_of_the_target_is_zero_at_any_level() -> None:
    for gain in (1.0, 0.01):
        assert loudness_loss(gain * tone(440.0), gain * tone(440.0)) < 1e-3


def test_band_powers_add_up_to_the_mean_square_below_8_khz() -> None:
    powers = band_powers(tone(440.0) + tone(3_000.0) + tone(10_000.0))  # (1, 48, M)
    assert powers.shape[1] == BANDS
    assert float(powers.sum(dim=1).mean()) == pytest.approx(2 * 0.1**2 / 2, rel=0.01)


def test_a_band_that_is_ten_decibels_louder_is_about_1_7_times_as_loud() -> None:
    # The exponent 0.23 of a power: 10 ** 0.23.
    quiet, loud = torch.full((1, BANDS, 1), 1e5), torch.full((1, BANDS, 1), 1e6)
    ratio = loudness(loud)[:, 10:40] / loudness(quiet)[:, 10:40]
    assert torch.all((ratio - 10**0.23).abs() < 0.15)


def test_sound_below_the_threshold_or_above_8_khz_is_ignored() -> None:
    target = tone(1_000.0)
    assert loudness_loss(target + tone(3_000.0, 1e-6), target) < 1e-3
    assert loudness_loss(target + tone(10_000.0), target) < 1e-3


def test_added_energy_costs_more_than_missing_energy() -> None:
    one, two = tone(500.0), tone(500.0) + tone(2_000.0)
    assert loudness_loss(two, one) > 1.5 * loudness_loss(one, two)


def test_gradients_are_finite_in_silence() -> None:
    audio = torch.zeros(1, SAMPLES, requires_grad=True)
    loudness_loss(audio, torch.zeros(1, SAMPLES)).backward()
    assert audio.grad is not None and torch.isfinite(audio.grad).all()


def test_the_bark_scale_has_a_critical_band_of_100_hz_at_the_bottom_and_21_bands_below_8_khz() -> None:
    assert float(bark(torch.tensor(100.0))) == pytest.approx(1.0, abs=0.02)
    assert float(bark(torch.tensor(8_000.0))) == pytest.approx(21.3, abs=0.1)
