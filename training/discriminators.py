"""The judges of the adversarial phase: networks that learn to tell recorded speech from what the decoder says.

Two families, as in HiFi-GAN (Kong et al. 2020) and EnCodec (Defossez et al. 2022): `PeriodJudge` looks at every p-th
sample, `SpectrumJudge` at a complex spectrogram. Neither may see above the bandwidth of the recording, where most
training speech holds nothing: `below_bandwidth` takes that away from both sides first. They are narrow, since on a CPU
they cost more than the decoder that they judge.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from training.data import RATE_OUT

PERIODS = (2, 3, 5, 7, 11)
PERIOD_WIDTHS = (16, 32, 64, 128)
FFT_SIZES = (2048, 1024, 512)
SPECTRUM_WIDTH = 16
SPECTRUM_DILATIONS = (1, 2, 4)
_SLOPE = 0.1
_FEATURE_FLOOR = 1e-3


@dataclass(frozen=True)
class Verdict:
    """What one judge makes of a batch: scores of any shape, and what its layers saw on the way."""

    scores: Tensor
    features: list[Tensor]


class PeriodJudge(nn.Module):
    """Sees the samples as rows of `period`: (B, T) at 24 kHz -> `Verdict`."""

    def __init__(self, period: int) -> None:
        super().__init__()
        self.period = period
        widths = (1, *PERIOD_WIDTHS)
        self.layers = nn.ModuleList(weight_norm(nn.Conv2d(a, b, (5, 1), (3, 1), (2, 0))) for a, b in pairwise(widths))
        self.last = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, audio: Tensor) -> Verdict:
        audio = audio[:, : audio.shape[1] // self.period * self.period]
        return _judge(self, audio.view(audio.shape[0], 1, -1, self.period))  # (B, 1, T / p, p)


class SpectrumJudge(nn.Module):
    """Sees real and imaginary part of a spectrogram: (B, T) at 24 kHz -> `Verdict`."""

    def __init__(self, fft: int) -> None:
        super().__init__()
        self.fft = fft
        self.register_buffer("taper", torch.hann_window(fft), persistent=False)
        width = SPECTRUM_WIDTH
        self.layers = nn.ModuleList([weight_norm(nn.Conv2d(2, width, (3, 9), padding=(1, 4)))])
        for dilation in SPECTRUM_DILATIONS:
            layer = nn.Conv2d(width, width, (3, 9), (1, 2), (dilation, 4), (dilation, 1))
            self.layers.append(weight_norm(layer))
        self.layers.append(weight_norm(nn.Conv2d(width, width, 3, padding=1)))
        self.last = weight_norm(nn.Conv2d(width, 1, 3, padding=1))
        self.to(memory_format=torch.channels_last)

    def forward(self, audio: Tensor) -> Verdict:
        spectrum = torch.stft(audio, self.fft, self.fft // 4, window=self.taper, normalized=True, return_complex=True)
        pair = torch.view_as_real(spectrum).permute(0, 3, 2, 1)  # (B, K, M, 2) -> (B, 2, M, K)
        return _judge(self, pair)


class Judges(nn.ModuleList):
    """All of them: (B, T) -> one `Verdict` each."""

    def __init__(self) -> None:
        super().__init__([*map(PeriodJudge, PERIODS), *map(SpectrumJudge, FFT_SIZES)])

    def forward(self, audio: Tensor) -> list[Verdict]:
        return [judge(audio) for judge in self]


def judging_loss(real: list[Verdict], said: list[Verdict]) -> Tensor:
    """What the judges minimise (least squares, Mao et al. 2017): 1 for recorded speech, 0 for the decoder's."""
    return _mean((1.0 - r.scores).square().mean() + s.scores.square().mean() for r, s in zip(real, said, strict=True))


def adversarial_loss(said: list[Verdict]) -> Tensor:
    """What the decoder minimises: to be taken for recorded speech."""
    return _mean((1.0 - verdict.scores).square().mean() for verdict in said)


def feature_loss(real: list[Verdict], said: list[Verdict]) -> Tensor:
    """Distance of what the judges' layers see, relative to what they see in recorded speech."""
    pairs = [pair for r, s in zip(real, said, strict=True) for pair in zip(r.features, s.features, strict=True)]
    return _mean((s - r.detach()).abs().mean() / (r.detach().abs().mean() + _FEATURE_FLOOR) for r, s in pairs)


def below_bandwidth(audio: Tensor, bandwidth_hz: Tensor) -> Tensor:
    """Audio (B, T) at 24 kHz without what lies above bandwidth_hz (B,)."""
    spectrum = torch.fft.rfft(audio)  # (B, T / 2 + 1)
    bins = torch.fft.rfftfreq(audio.shape[1], 1.0 / RATE_OUT, device=audio.device)
    return torch.fft.irfft(spectrum * (bins < bandwidth_hz[:, None]), n=audio.shape[1])


def _judge(judge: PeriodJudge | SpectrumJudge, x: Tensor) -> Verdict:
    features = []
    for layer in judge.layers:
        x = F.leaky_relu(layer(x), _SLOPE)
        features.append(x)
    return Verdict(judge.last(x), features)


def _mean(values: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean()
