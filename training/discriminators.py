"""The discriminators of the adversarial phase ("judges"), which learn to tell recorded speech from the decoder's.

There are two families, as in HiFi-GAN (Kong et al. 2020) and the multi-band spectra of DAC (Kumar et al. 2023). Neither
may see content above the recording's bandwidth: `below_bandwidth` removes it from both sides first, and a row is not
judged in a band that it does not reach. The judges are narrow, and a step uses a random subset: on a CPU they cost more
than the decoder.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from training.data import RATE_OUT

PERIODS = (2, 3, 5, 7, 11)
PERIOD_WIDTHS = (16, 32, 64, 128)
FFT_SIZES = (2048, 1024, 512)
BAND_EDGES_HZ = (0, 1_500, 4_000, 8_000, 12_000)
BAND_WIDTH = 16
BAND_DILATIONS = (1, 2, 4)
SITTING_PERIODS, SITTING_SPECTRA = 3, 2
_COMPRESSION = 0.5
_QUIET = 1e-4
_SLOPE = 0.1
_FEATURE_FLOOR = 1e-3


@dataclass(frozen=True)
class Verdict:
    """Scores have any shape; features are the activations of the layers."""

    scores: Tensor
    features: list[Tensor]


class PeriodJudge(nn.Module):
    """Judges the samples in rows of `period`: (B, T) at 24 kHz -> `Verdict`."""

    def __init__(self, period: int) -> None:
        super().__init__()
        self.period = period
        widths = (1, *PERIOD_WIDTHS)
        self.layers = nn.ModuleList(weight_norm(nn.Conv2d(a, b, (5, 1), (3, 1), (2, 0))) for a, b in pairwise(widths))
        self.last = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, audio: Tensor) -> Verdict:
        audio = audio[:, : audio.shape[1] // self.period * self.period]
        return _judge(self, audio.view(audio.shape[0], 1, -1, self.period))  # (B, 1, T / p, p)


class BandJudge(nn.Module):
    """Judges real and imaginary part of one band of a spectrogram: (B, 2, M, K) -> `Verdict`."""

    def __init__(self) -> None:
        super().__init__()
        width = BAND_WIDTH
        self.layers = nn.ModuleList([weight_norm(nn.Conv2d(2, width, (3, 9), (1, 2), (1, 4)))])
        for dilation in BAND_DILATIONS:
            layer = nn.Conv2d(width, width, (3, 9), (1, 2), (dilation, 4), (dilation, 1))
            self.layers.append(weight_norm(layer))
        self.layers.append(weight_norm(nn.Conv2d(width, width, 3, padding=1)))
        self.last = weight_norm(nn.Conv2d(width, 1, 3, padding=1))
        self.to(memory_format=torch.channels_last)

    def forward(self, band: Tensor) -> Verdict:
        return _judge(self, band.contiguous(memory_format=torch.channels_last))


class SpectrumJudge(nn.ModuleList):
    """A `BandJudge` for each band of a spectrogram: (B, T) at 24 kHz, bandwidth_hz (B,) -> `Verdict`s."""

    def __init__(self, fft: int) -> None:
        super().__init__(BandJudge() for _ in pairwise(BAND_EDGES_HZ))
        self.fft = fft
        self.register_buffer("taper", torch.hann_window(fft), persistent=False)

    def forward(self, audio: Tensor, bandwidth_hz: Tensor) -> list[Verdict]:
        spectrum = torch.stft(audio, self.fft, self.fft // 4, window=self.taper, normalized=True, return_complex=True)
        pair = torch.view_as_real(spectrum).permute(0, 3, 2, 1)  # (B, K, M, 2) -> (B, 2, M, K)
        # Compressed, as in hearing: quiet parts count, too.
        pair = pair * (pair.square().sum(1, keepdim=True) + _QUIET) ** ((_COMPRESSION - 1.0) / 2.0)
        verdicts = []
        for judge, (low, high) in zip(self, pairwise(BAND_EDGES_HZ), strict=True):
            rows = bandwidth_hz > (low + high) / 2.0
            if rows.any():
                bins = slice(round(low * self.fft / RATE_OUT), round(high * self.fft / RATE_OUT))
                verdicts.append(judge(pair[rows][..., bins]))
        return verdicts


class Sitting(NamedTuple):
    """The judges that a step uses, as indices into `PERIODS` and `FFT_SIZES`."""

    periods: tuple[int, ...]
    spectra: tuple[int, ...]


def drawn_sitting(rng: np.random.Generator) -> Sitting:
    """Over many steps each judge takes part, at two thirds of the cost."""
    return Sitting(
        tuple(rng.permutation(len(PERIODS))[:SITTING_PERIODS].tolist()),
        tuple(rng.permutation(len(FFT_SIZES))[:SITTING_SPECTRA].tolist()),
    )


class Judges(nn.Module):
    """All judges: (B, T) at 24 kHz, bandwidth_hz (B,) -> one `Verdict` each."""

    def __init__(self) -> None:
        super().__init__()
        self.periods = nn.ModuleList(map(PeriodJudge, PERIODS))
        self.spectra = nn.ModuleList(map(SpectrumJudge, FFT_SIZES))

    def forward(self, audio: Tensor, bandwidth_hz: Tensor, sitting: Sitting | None = None) -> list[Verdict]:
        periods, spectra = sitting or Sitting(tuple(range(len(PERIODS))), tuple(range(len(FFT_SIZES))))
        verdicts = [self.periods[i](audio) for i in periods]
        return verdicts + [verdict for i in spectra for verdict in self.spectra[i](audio, bandwidth_hz)]


def judging_loss(real: list[Verdict], said: list[Verdict]) -> Tensor:
    """The judges' loss (least squares, Mao et al. 2017): 1 for recorded speech, 0 for the decoder's."""
    return _mean((1.0 - r.scores).square().mean() + s.scores.square().mean() for r, s in zip(real, said, strict=True))


def adversarial_loss(said: list[Verdict]) -> Tensor:
    """The decoder's loss: lowest if its output is taken for recorded speech."""
    return _mean((1.0 - verdict.scores).square().mean() for verdict in said)


def feature_loss(real: list[Verdict], said: list[Verdict]) -> Tensor:
    """Distance of the judges' activations from those for recorded speech, relative to the latter."""
    pairs = [pair for r, s in zip(real, said, strict=True) for pair in zip(r.features, s.features, strict=True)]
    return _mean((s - r.detach()).abs().mean() / (r.detach().abs().mean() + _FEATURE_FLOOR) for r, s in pairs)


def below_bandwidth(audio: Tensor, bandwidth_hz: Tensor) -> Tensor:
    """Removes content above bandwidth_hz (B,) from audio (B, T) at 24 kHz."""
    spectrum = torch.fft.rfft(audio)  # (B, T / 2 + 1)
    bins = torch.fft.rfftfreq(audio.shape[1], 1.0 / RATE_OUT, device=audio.device)
    return torch.fft.irfft(spectrum * (bins < bandwidth_hz[:, None]), n=audio.shape[1])


def _judge(judge: PeriodJudge | BandJudge, x: Tensor) -> Verdict:
    features = []
    for layer in judge.layers:
        x = F.leaky_relu(layer(x), _SLOPE)
        features.append(x)
    return Verdict(judge.last(x).float(), features)


def _mean(values: Iterable[Tensor]) -> Tensor:
    return torch.stack([value.float() for value in values]).mean()
