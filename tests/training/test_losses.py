"""The losses are least at the target and ignore what the recording cannot contain."""

import pytest
import torch
from torch import Tensor

from training.losses import (
    RESOLUTIONS,
    LossWeights,
    coherence_loss,
    envelope_loss,
    flicker_loss,
    hum_loss,
    losses,
    mel_filters,
    quantiser_loss,
    total,
)
from training.model import QUANTISER_MEAN, QUANTISER_SPREAD

SAMPLES = 24_000


def noise(seed: int, samples: int = SAMPLES) -> Tensor:
    """Noise with a speech-like envelope: (2, samples)."""
    generator = torch.Generator().manual_seed(seed)
    envelope = torch.sin(torch.arange(samples) / 1500.0 + seed).abs()
    return 0.1 * envelope * torch.randn(2, samples, generator=generator)


def above(hz: float, audio: Tensor) -> Tensor:
    spectrum = torch.fft.rfft(audio)
    spectrum[..., : int(hz / 24_000 * audio.shape[-1])] = 0
    return torch.fft.irfft(spectrum, audio.shape[-1])


def projected(frames: int = 2000) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return QUANTISER_MEAN + QUANTISER_SPREAD * torch.randn(1, frames, 8, generator=generator)


def test_the_loss_of_the_target_is_only_the_quantiser_term() -> None:
    audio = noise(0)
    terms = losses(audio, audio, torch.tensor([12_000.0, 8_000.0]), projected())
    for name in ("mel", "log_magnitude", "convergence", "envelope", "loudness", "coherence", "hum", "flicker"):
        assert float(terms[name]) == pytest.approx(0.0, abs=1e-3), name


def test_frequencies_above_the_sources_bandwidth_do_not_count() -> None:
    target, wrong = noise(0), above(8_000.0, noise(1))
    at_16k = losses(target + wrong, target, torch.tensor([8_000.0, 8_000.0]), projected())
    at_24k = losses(target + wrong, target, torch.tensor([12_000.0, 12_000.0]), projected())
    assert at_16k["convergence"] < 0.01 and at_16k["log_magnitude"] < 0.02 and at_16k["mel"] < 0.02
    assert at_24k["log_magnitude"] > 10 * at_16k["log_magnitude"]


def test_hum_is_heard_at_the_frame_rate_only_and_only_if_the_recording_has_none() -> None:
    time_s = torch.arange(2 * SAMPLES) / 24_000
    bandwidth_hz = torch.full((2,), 8_000.0)
    quiet = noise(0, 2 * SAMPLES)
    hum, other = (
        sum(0.01 * torch.sin(2 * torch.pi * hertz * n * time_s) for n in range(1, 80)) for hertz in (50.0, 57.0)
    )
    assert hum_loss(quiet + hum, quiet, bandwidth_hz) > 1.0
    assert hum_loss(quiet + hum, quiet + hum, bandwidth_hz) == 0.0
    assert hum_loss(quiet + other, quiet, bandwidth_hz) < 0.5
    assert hum_loss(quiet[:, : SAMPLES // 2], quiet[:, : SAMPLES // 2], bandwidth_hz) == 0.0


def test_flicker_is_what_all_tokens_have_at_the_same_place() -> None:
    time_s = torch.arange(4 * SAMPLES) / 24_000
    bandwidth_hz = torch.full((2,), 8_000.0)
    voice = noise(0, 4 * SAMPLES)
    in_step, out_of_step = (1.0 + 0.3 * torch.cos(2 * torch.pi * hertz * time_s) for hertz in (50.0, 43.0))
    least = 0.05  # log power, squared
    assert flicker_loss(voice * in_step, voice, bandwidth_hz) > least
    assert flicker_loss(voice * out_of_step, voice, bandwidth_hz) < least / 10
    assert flicker_loss(0.5 * voice, voice, bandwidth_hz) < least / 100
    assert flicker_loss(voice * in_step, voice * in_step, bandwidth_hz) == 0.0
    assert flicker_loss(voice * in_step, voice, torch.full((2,), 500.0)) == 0.0


def test_gradients_are_finite_in_silence_and_for_short_crops() -> None:
    for target in (torch.zeros(2, SAMPLES), noise(0, 7_200)):
        audio = (noise(1, target.shape[1]) * 0.0).requires_grad_()
        total(losses(audio, target, torch.full((2,), 8_000.0), projected()), LossWeights()).backward()
        assert torch.isfinite(audio.grad).all()


def test_envelopes_of_other_speech_cost_more_than_a_louder_copy() -> None:
    target = noise(0)
    assert envelope_loss(2.0 * target, target) < 1e-3
    assert envelope_loss(noise(3), target) > 0.3


def test_coherence_depends_on_phase_and_not_on_level() -> None:
    times = torch.arange(SAMPLES, dtype=torch.float64) / 24_000
    wave, late = (0.1 * torch.sin(2 * torch.pi * 150 * (times - delay)).float()[None] for delay in (0.0, 1 / 300))
    assert coherence_loss(0.3 * wave, wave) < 0.1
    assert coherence_loss(late, wave) > 1.9  # half a period
    assert coherence_loss(noise(1), noise(2)) == pytest.approx(1.0, abs=0.2)


def test_the_quantiser_term_is_least_where_levels_are_used_equally() -> None:
    even = projected()
    assert quantiser_loss(even) < 0.05
    assert quantiser_loss(even * 0.1) > 0.5
    assert quantiser_loss(even + 1.0) > 0.5
    assert quantiser_loss(even[..., :1].expand_as(even)) > 0.5


@pytest.mark.parametrize(("fft", "bands"), RESOLUTIONS)
def test_no_mel_filter_is_empty(fft: int, bands: int) -> None:
    filters, tops = mel_filters(fft, bands)
    assert filters.shape == (bands, fft // 2 + 1)
    torch.testing.assert_close(filters.sum(1), torch.ones(bands))
    assert (tops.diff() > 0).all()
