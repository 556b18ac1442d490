"""Mel features as the semantic branch of NeuCodec takes them.

Owns `log_mel`, the Kaldi filter bank (frames of 25 ms every 10 ms, 80 bins) in plain torch, batched and differentiable.
It equals `torchaudio.compliance.kaldi.fbank` with the settings of transformers' `NeuCodecFeatureExtractor`, without
needing torchaudio. It has no state; `streaming` calls it on windows and `training` on whole crops.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

SAMPLE_RATE = 16_000
FRAME_SAMPLES = 400
SHIFT_SAMPLES = 160
MEL_BINS = 80

_FFT_SIZE = 512
_LOW_HZ = 20.0
_PREEMPHASIS = 0.97
_POVEY_EXPONENT = 0.85
_SCALE = 2.0**15
_FLOOR = torch.finfo(torch.float32).eps


def log_mel(pcm: Tensor, to_mel: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Log-mel filter bank of Kaldi, before any normalisation: (B, T) float32 at 16 kHz -> (B, M, 80).

    `pcm` has full scale 1. `to_mel` optionally replaces the product with `mel_matrix`. Only whole frames count
    (`snip_edges`), so M = (T - 400) // 160 + 1, and 0 if T < 400.
    Source: kaldi `feature-fbank.cc`; same result as `torchaudio.compliance.kaldi.fbank`.
    """
    if pcm.shape[1] < FRAME_SAMPLES:
        return pcm.new_empty(pcm.shape[0], 0, MEL_BINS)
    frames = pcm.unfold(1, FRAME_SAMPLES, SHIFT_SAMPLES) * _SCALE  # (B, M, 400)
    frames = frames - frames.mean(dim=2, keepdim=True)
    before = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
    frames = (frames - _PREEMPHASIS * before) * povey_window(pcm.device)
    spectrum = torch.fft.rfft(frames, n=_FFT_SIZE, dim=2)
    power = spectrum.real.square() + spectrum.imag.square()  # (B, M, 257)
    mel = power @ mel_matrix(pcm.device) if to_mel is None else to_mel(power)
    return mel.clamp(min=_FLOOR).log()


@cache
def povey_window(device: torch.device) -> Tensor:
    """Kaldi's window, a Hann window to the power of 0.85: (400,) float32."""
    return torch.hann_window(FRAME_SAMPLES, periodic=False, dtype=torch.float64).pow(_POVEY_EXPONENT).float().to(device)


@cache
def mel_matrix(device: torch.device) -> Tensor:
    """Triangles of Kaldi's mel scale, from 20 Hz to 8 kHz, as (257, 80) float32."""
    edges = torch.linspace(_mel(_LOW_HZ), _mel(SAMPLE_RATE / 2), MEL_BINS + 2, dtype=torch.float64)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    bins = torch.arange(_FFT_SIZE // 2 + 1, dtype=torch.float64) * SAMPLE_RATE / _FFT_SIZE
    mel = (1127.0 * torch.log1p(bins / 700.0)).unsqueeze(1)  # (257, 1)
    rising = (mel - left) / (centre - left)
    falling = (right - mel) / (right - centre)
    return torch.minimum(rising, falling).clamp(min=0.0).float().to(device)


def _mel(hz: float) -> float:
    return float(1127.0 * torch.log1p(torch.tensor(hz / 700.0, dtype=torch.float64)))
