"""The discriminators learn to tell recordings from imitations below the bandwidth, and give useful gradients."""

import numpy as np
import pytest
import torch
from torch import Tensor

from training.discriminators import (
    FFT_SIZES,
    PERIODS,
    Judges,
    Sitting,
    adversarial_loss,
    below_bandwidth,
    drawn_sitting,
    feature_loss,
    judging_loss,
)

SAMPLES = 4_800
FULL_BAND = torch.tensor([12_000.0, 12_000.0])


def noise(seed: int) -> Tensor:
    return torch.randn(2, SAMPLES, generator=torch.Generator().manual_seed(seed))


@pytest.mark.slow
def test_discriminators_learn_to_separate_signals_and_their_gradient_points_to_the_real_one() -> None:
    torch.manual_seed(0)
    judges = Judges()
    optimiser = torch.optim.Adam(judges.parameters(), 1e-3)
    smooth = torch.sin(torch.arange(SAMPLES) / 7.0).repeat(2, 1)
    first = None
    for step in range(15):
        loss = judging_loss(judges(smooth, FULL_BAND), judges(noise(step), FULL_BAND))
        first = first or float(loss.detach())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.6 * first
    said = (0.5 * smooth + 0.5 * noise(99)).requires_grad_()
    verdicts = judges(said, FULL_BAND)
    (adversarial_loss(verdicts) + feature_loss(judges(smooth, FULL_BAND), verdicts)).backward()
    towards = smooth - said.detach()
    assert float((-said.grad * towards).sum()) > 0.0


def test_the_feature_distance_of_identical_audio_is_zero() -> None:
    judges = Judges()
    assert float(feature_loss(judges(noise(0), FULL_BAND), judges(noise(0), FULL_BAND)).detach()) == 0.0


def test_only_frequencies_above_the_bandwidth_are_removed() -> None:
    times = 2 * torch.pi * torch.arange(SAMPLES, dtype=torch.float64) / 24_000
    low, high = torch.sin(1_000 * times).float(), torch.sin(10_000 * times).float()
    kept = below_bandwidth((low + high).repeat(2, 1), torch.tensor([8_000.0, 12_000.0]))
    torch.testing.assert_close(kept[0], low, atol=1e-4, rtol=0)
    torch.testing.assert_close(kept[1], low + high, atol=1e-4, rtol=0)


def test_a_row_is_not_judged_in_bands_above_its_recordings_bandwidth() -> None:
    judges, sitting = Judges(), Sitting(periods=(), spectra=(1,))
    rows = [verdict.scores.shape[0] for verdict in judges(noise(0), torch.tensor([8_000.0, 12_000.0]), sitting)]
    assert rows == [2, 2, 2, 1]
    assert len(judges(noise(0), torch.tensor([8_000.0, 7_000.0]), sitting)) == 3


def test_every_discriminator_is_drawn_sometimes() -> None:
    sittings = [drawn_sitting(np.random.default_rng(seed)) for seed in range(20)]
    assert {judge for sitting in sittings for judge in sitting.periods} == set(range(len(PERIODS)))
    assert {judge for sitting in sittings for judge in sitting.spectra} == set(range(len(FFT_SIZES)))
