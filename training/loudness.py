"""Perceived loudness: the audible distance of the output from the original, band by band and frame by frame.

The measure follows the model behind ITU-T P.862 (PESQ): powers in bands of equal width on the Bark scale, Zwicker's
compressed loudness above the threshold in quiet, masking of differences by a quarter of the smaller loudness, and a
second sum in which additions to the original count for more than omissions. Unlike P.862 it does not align time, level
or frequency response, and every frame counts alike. It ends at 8 kHz, which every recording reaches.
"""

from functools import cache

import torch
from torch import Tensor

from training.data import RATE_OUT

BANDS = 48
_FFT = 768  # 32 ms, as P.862
_TOP_HZ = 8_000.0
_LEVEL_DB = 79.0  # assumed sound pressure level of a crop
_EXPONENT = 0.23
_SONES = 0.187
_MASKED = 0.25
_ADDED_EXPONENT = 1.2
_ADDED_LOW, _ADDED_HIGH = 3.0, 12.0
_ADDED_FLOOR = 50.0
_SYMMETRIC_POINTS, _ADDED_POINTS = 0.1, 0.0309


def loudness_loss(audio: Tensor, target: Tensor) -> Tensor:
    """Mean disturbance in points of the raw P.862 score: audio and target (B, T) at 24 kHz -> ()."""
    scale = 10 ** (_LEVEL_DB / 10) / (target.square().mean(dim=1) + 1e-7)
    got, meant = (band_powers(x) * scale[:, None, None] for x in (audio, target))  # (B, 48, M)
    loud, wanted = loudness(got), loudness(meant)
    disturbance = ((loud - wanted).abs() - _MASKED * torch.minimum(loud, wanted)).clamp(min=0.0)
    ratio = ((got + _ADDED_FLOOR) / (meant + _ADDED_FLOOR)) ** _ADDED_EXPONENT
    added = torch.where(ratio < _ADDED_LOW, 0.0, ratio.clamp(max=_ADDED_HIGH))
    width = float(bark(torch.tensor(_TOP_HZ))) / BANDS
    symmetric = ((disturbance.square().sum(dim=1) + 1e-6) * BANDS).sqrt() * width  # (B, M)
    asymmetric = (disturbance * added).sum(dim=1) * width
    return (_SYMMETRIC_POINTS * symmetric + _ADDED_POINTS * asymmetric).mean()


def band_powers(audio: Tensor) -> Tensor:
    """Mean square in each band of each frame of 32 ms: (B, T) -> (B, 48, M)."""
    taper = _taper().to(audio.device)
    spectrum = torch.stft(audio, _FFT, _FFT // 2, _FFT, taper, center=False, return_complex=True)
    power = (spectrum.real.square() + spectrum.imag.square()) * (2.0 / (_FFT * taper.square().sum()))
    return _bands().to(audio.device) @ power


def loudness(powers: Tensor) -> Tensor:
    """Zwicker's specific loudness of band powers relative to 0 dB of sound pressure: (B, 48, M), zero if inaudible."""
    threshold = _thresholds().to(powers.device)
    relative = (0.5 + 0.5 * powers / threshold).clamp(min=1.0)
    return _SONES * (threshold / 0.5) ** _EXPONENT * (relative**_EXPONENT - 1.0)


def bark(hertz: Tensor) -> Tensor:
    """Critical-band rate of Zwicker and Terhardt 1980."""
    return 13.0 * torch.atan(7.6e-4 * hertz) + 3.5 * torch.atan((hertz / 7_500.0) ** 2)


@cache
def _taper() -> Tensor:
    return torch.hann_window(_FFT)


@cache
def _bands() -> Tensor:
    """(48, fft / 2 + 1): each bin below 8 kHz belongs to the bands that it overlaps, in proportion."""
    width = RATE_OUT / _FFT
    bins = torch.arange(_FFT // 2 + 1) * width
    low, high = bark((bins - width / 2).clamp(min=0.0)), bark(bins + width / 2)
    edges = torch.linspace(0.0, float(bark(torch.tensor(_TOP_HZ))), BANDS + 1)
    overlap = torch.minimum(edges[1:, None], high) - torch.maximum(edges[:-1, None], low)
    return overlap.clamp(min=0.0) / (high - low)


@cache
def _thresholds() -> Tensor:
    """Power of the threshold in quiet at the middle of each band, (48, 1), by Terhardt 1979."""
    grid = torch.linspace(20.0, _TOP_HZ, 4_000)
    middles = (torch.arange(BANDS) + 0.5) / BANDS * bark(torch.tensor(_TOP_HZ))
    khz = grid[torch.searchsorted(bark(grid), middles).clamp(max=len(grid) - 1)] / 1_000.0
    decibels = 3.64 * khz**-0.8 - 6.5 * torch.exp(-0.6 * (khz - 3.3) ** 2) + 1e-3 * khz**4
    return 10 ** (decibels / 10)[:, None]
