"""The judges learn to tell recordings from imitations, see nothing above the bandwidth, and teach by their gradient."""

import pytest
import torch
from torch import Tensor

from training.discriminators import Judges, adversarial_loss, below_bandwidth, feature_loss, judging_loss

SAMPLES = 4_800


def noise(seed: int) -> Tensor:
    return torch.randn(2, SAMPLES, generator=torch.Generator().manual_seed(seed))


@pytest.mark.slow
def test_judges_learn_to_tell_a_smooth_signal_from_noise_and_the_gradient_leads_towards_the_real_one() -> None:
    torch.manual_seed(0)
    judges = Judges()
    optimiser = torch.optim.Adam(judges.parameters(), 1e-3)
    smooth = torch.sin(torch.arange(SAMPLES) / 7.0).repeat(2, 1)
    first = None
    for step in range(15):
        loss = judging_loss(judges(smooth), judges(noise(step)))
        first = first or float(loss.detach())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.6 * first
    said = (0.5 * smooth + 0.5 * noise(99)).requires_grad_()
    verdicts = judges(said)
    (adversarial_loss(verdicts) + feature_loss(judges(smooth), verdicts)).backward()
    towards = smooth - said.detach()
    assert float((-said.grad * towards).sum()) > 0.0


def test_the_features_of_the_same_audio_are_no_distance_apart() -> None:
    judges = Judges()
    assert float(feature_loss(judges(noise(0)), judges(noise(0))).detach()) == 0.0


def test_what_lies_above_the_bandwidth_is_taken_away_and_the_rest_stays() -> None:
    times = 2 * torch.pi * torch.arange(SAMPLES, dtype=torch.float64) / 24_000
    low, high = torch.sin(1_000 * times).float(), torch.sin(10_000 * times).float()
    kept = below_bandwidth((low + high).repeat(2, 1), torch.tensor([8_000.0, 12_000.0]))
    torch.testing.assert_close(kept[0], low, atol=1e-4, rtol=0)
    torch.testing.assert_close(kept[1], low + high, atol=1e-4, rtol=0)
