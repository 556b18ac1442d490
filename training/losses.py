"""The training losses except the judges': spectra, envelopes, loudness, phase, and even use of the tokens' levels.

Every spectral term covers only the bandwidth of the recording, so that nothing is required where the source has no
content.
"""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

from neucodec_streaming.config import TOKENS_PER_SECOND
from training.data import HOP_OUT, RATE_OUT
from training.loudness import loudness_loss
from training.model import QUANTISER_MEAN, QUANTISER_SPREAD

# (fft, mel bands) of each resolution; hop is a quarter of the fft, the window is as long as the fft. The shortest
# resolves changes within a frame of 20 ms: a decoder without continuity between frames flickers at 50 Hz.
RESOLUTIONS = ((256, 20), (512, 40), (1024, 80), (2048, 120))
_FLOOR = 3e-4
_GUARD_HZ = 200.0

# STOI, Taal et al. 2011: frames of 25.6 ms, 15 third-octave bands from 150 Hz, segments of 30 frames.
_STOI_WINDOW = 614
_STOI_HOP = 307
_STOI_FFT = 1024
_STOI_BANDS = 15
_STOI_LOWEST_HZ = 150.0
_STOI_SEGMENT = 30
_STOI_STEP = 6
_STOI_RANGE_DB = 40.0
_STOI_CLIP = 1.0 + 10 ** (15 / 20)

# Lines at multiples of the frame rate, in windows of 0.2 s.
_HUM_WINDOW = RATE_OUT // 5
_HUM_RESOLUTION_HZ = RATE_OUT // _HUM_WINDOW
_HUM_AROUND_HZ = (15, 20, 25)
_HUM_MIN_SAMPLES = RATE_OUT
_HUM_FLOOR = 1e-9

# Envelopes of bands, eight times a token.
_FLICKER_WINDOW = 192
_FLICKER_FFT = 256
_FLICKER_PARTS = 8
_FLICKER_EDGES_HZ = (300.0, 1_000.0, 2_000.0, 3_000.0, 4_500.0)
_FLICKER_RANGE_DB = 30.0

_COHERENCE_FFT = 1024
_COHERENCE_EDGES_HZ = (70.0, 300.0, 600.0)


@dataclass(frozen=True)
class LossWeights:
    mel: float = 1.0
    log_magnitude: float = 0.5
    convergence: float = 0.5
    envelope: float = 4.0
    loudness: float = 2.0
    coherence: float = 1.4
    quantiser: float = 0.5
    hum: float = 0.5
    flicker: float = 5.0
    recogniser: float = 4.0
    adversarial: float = 0.5
    features: float = 2.0


def losses(
    audio: Tensor,
    target: Tensor,
    bandwidth_hz: Tensor,
    projected: Tensor,
    resolutions: tuple[tuple[int, int], ...] = RESOLUTIONS,
) -> dict[str, Tensor]:
    """Returns the unweighted terms: audio and target (B, T) at 24 kHz, bandwidth_hz (B,), projected (B, F, 8).

    `resolutions` are those of the spectral terms: a step may use only some of them.
    """
    mel, log_magnitude, convergence = [], [], []
    for fft, bands in resolutions:
        if fft // 2 >= audio.shape[1]:
            continue
        got, wanted = magnitude(audio, fft, fft, fft // 4), magnitude(target, fft, fft, fft // 4)  # (B, K, M)
        known = _known_bins(fft, bandwidth_hz)
        log_magnitude.append(_masked_mean(((got + _FLOOR).log() - (wanted + _FLOOR).log()).abs(), known))
        error = ((got - wanted) * known).flatten(1).norm(dim=1)
        convergence.append((error / ((wanted * known).flatten(1).norm(dim=1) + _FLOOR * fft)).mean())
        filters, tops = (x.to(audio.device) for x in mel_filters(fft, bands))
        difference = ((filters @ got + _FLOOR).log() - (filters @ wanted + _FLOOR).log()).abs()
        mel.append(_masked_mean(difference, (tops <= bandwidth_hz[:, None] - _GUARD_HZ).float().unsqueeze(2)))
    return {
        "mel": torch.stack(mel).mean(),
        "log_magnitude": torch.stack(log_magnitude).mean(),
        "convergence": torch.stack(convergence).mean(),
        "envelope": envelope_loss(audio, target),
        "loudness": loudness_loss(audio, target),
        "coherence": coherence_loss(audio, target),
        "quantiser": quantiser_loss(projected),
        "hum": hum_loss(audio, target, bandwidth_hz),
        "flicker": flicker_loss(audio, target, bandwidth_hz),
    }


def total(terms: dict[str, Tensor], weights: LossWeights) -> Tensor:
    return torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()


def magnitude(audio: Tensor, fft: int, window: int, hop: int) -> Tensor:
    """Returns a spectrogram scaled so that white noise keeps its level: (B, T) -> (B, fft / 2 + 1, M)."""
    taper = _window(window).to(audio.device)
    spectrum = torch.stft(audio, fft, hop, window, taper, pad_mode="reflect", return_complex=True)
    power = spectrum.real.square() + spectrum.imag.square()
    return (power / taper.square().sum() + 1e-12).sqrt()


def envelope_loss(audio: Tensor, target: Tensor) -> Tensor:
    """One minus the mean correlation of short-time envelopes in third-octave bands, as in STOI: (B, T) -> ()."""
    bands = _third_octaves().to(audio.device)
    got = (bands @ magnitude(audio, _STOI_FFT, _STOI_WINDOW, _STOI_HOP).square() + 1e-10).sqrt()  # (B, 15, M)
    wanted = (bands @ magnitude(target, _STOI_FFT, _STOI_WINDOW, _STOI_HOP).square() + 1e-10).sqrt()
    loudness = wanted.square().sum(dim=1)  # (B, M)
    heard = loudness > loudness.amax(dim=1, keepdim=True) * 10 ** (-_STOI_RANGE_DB / 10)
    size = min(_STOI_SEGMENT, wanted.shape[2])
    got, wanted = (x.unfold(2, size, _STOI_STEP) for x in (got, wanted))  # (B, 15, S, size)
    mask = heard.float().unfold(1, size, _STOI_STEP).unsqueeze(1)  # (B, 1, S, size)
    scale = ((wanted.square() * mask).sum(3) / ((got.square() * mask).sum(3) + 1e-10)).sqrt().unsqueeze(3)
    got = torch.minimum(got * scale.detach(), wanted * _STOI_CLIP)
    got, wanted = (_centred(x, mask) for x in (got, wanted))
    correlation = (got * wanted).sum(3) / (got.norm(dim=3) * wanted.norm(dim=3) + 1e-7)
    weight = (mask.sum(3) >= size / 2).float().expand_as(correlation)
    return 1.0 - (correlation * weight).sum() / (weight.sum() + 1e-3)


def coherence_loss(audio: Tensor, target: Tensor) -> Tensor:
    """One minus the mean cosine between both waveforms in low bands, frame by frame: (B, T) -> ().

    Covers only the fundamental and the first formant. If tokens do not encode where a voice's pulses are, a decoder
    with short context cannot join its frames: harmonics turn into noise, which spectral losses hardly penalise.
    """
    got, wanted = (_complex(x) for x in (audio, target))  # (B, K, M)
    cosines, weights = [], []
    for low, high in pairwise(_COHERENCE_EDGES_HZ):
        bins = slice(round(low * _COHERENCE_FFT / RATE_OUT), round(high * _COHERENCE_FFT / RATE_OUT))
        a, b = got[:, bins], wanted[:, bins]
        size = b.abs().square().sum(dim=1).sqrt()  # (B, M)
        product = (a * b.conj()).real.sum(dim=1)
        cosines.append(product / ((a.abs().square().sum(dim=1) + 1e-6).sqrt() * size + 1e-4))
        weights.append(size / (size.mean(dim=1, keepdim=True) + 1e-3))
    cosine, weight = torch.stack(cosines), torch.stack(weights)
    return 1.0 - (cosine * weight).sum() / (weight.sum() + 1e-3)


def hum_loss(audio: Tensor, target: Tensor, bandwidth_hz: Tensor) -> Tensor:
    """Height of lines at multiples of 50 Hz above the spectrum around them, as a log of power: (B, T) -> ().

    Lines that the recording has too, such as harmonics, do not count. Log spectra are averaged over time, as in
    `benchmarks.metrics.hum`, so that pauses count as much as speech. Zero for crops of less than a second, which
    average too little.
    """
    if audio.shape[1] < _HUM_MIN_SAMPLES:
        return audio.new_zeros(())
    got, wanted = (
        (magnitude(x, _HUM_WINDOW, _HUM_WINDOW, _HUM_WINDOW // 2).square() + _HUM_FLOOR).log().mean(dim=2)
        for x in (audio, target)
    )
    excess = got - wanted  # (B, K)
    around = [offset // _HUM_RESOLUTION_HZ * side for offset in _HUM_AROUND_HZ for side in (-1, 1)]
    local = torch.stack([excess.roll(shift, dims=1) for shift in around]).mean(dim=0)
    step = TOKENS_PER_SECOND // _HUM_RESOLUTION_HZ
    lines = (excess - local)[:, step:-step:step].relu()
    known = _known_bins(_HUM_WINDOW, bandwidth_hz)[:, step:-step:step, 0]
    return (lines * known).sum() / known.sum()


def flicker_loss(audio: Tensor, target: Tensor, bandwidth_hz: Tensor) -> Tensor:
    """Variance, over the eighths of a token, of the mean difference of both log levels in four bands: (B, T) -> ().

    Means are over all loud tokens of the batch. Both begin with a token. `benchmarks.metrics.flicker` also counts
    modulation that has no fixed place in the tokens.
    """
    hop = HOP_OUT // _FLICKER_PARTS
    bins = torch.arange(_FLICKER_FFT // 2 + 1, device=audio.device) * RATE_OUT / _FLICKER_FFT
    edges = torch.tensor(_FLICKER_EDGES_HZ, device=audio.device)
    bands = ((bins >= edges[:-1, None]) & (bins < edges[1:, None])).float()  # (4, K)
    got, wanted = (
        bands @ magnitude(x, _FLICKER_FFT, _FLICKER_WINDOW, hop)[..., : audio.shape[1] // hop].square()
        for x in (audio, target)
    )  # (B, 4, 8 F)
    loud = wanted > wanted.amax(dim=2, keepdim=True) * 10 ** (-_FLICKER_RANGE_DB / 10)
    weight = (loud & (edges[1:, None] <= bandwidth_hz[:, None, None] - _GUARD_HZ)).float()
    excess = ((got + _FLOOR**2).log() - (wanted + _FLOOR**2).log()) * weight
    parts, counts = (x.unflatten(2, (-1, _FLICKER_PARTS)).sum(dim=(0, 2)) for x in (excess, weight))  # (4, 8)
    return (parts / (counts + 1.0)).var(dim=1, correction=0).mean()


def _complex(audio: Tensor) -> Tensor:
    taper = _window(_COHERENCE_FFT).to(audio.device)
    return torch.stft(audio, _COHERENCE_FFT, _COHERENCE_FFT // 4, window=taper, return_complex=True)


def quantiser_loss(projected: Tensor) -> Tensor:
    """Distance of the quantiser's input (B, F, 8) from independent dimensions that use all levels equally."""
    flat = projected.flatten(0, 1)
    mean = flat.mean(dim=0)
    centred = (flat - mean) / QUANTISER_SPREAD
    covariance = centred.T @ centred / flat.shape[0]
    identity = torch.eye(flat.shape[1], device=flat.device)
    return (mean - QUANTISER_MEAN).square().mean() + (covariance - identity).square().sum() / flat.shape[1]


@cache
def mel_filters(fft: int, bands: int) -> tuple[Tensor, Tensor]:
    """Triangles of equal sum on the mel scale up to 12 kHz, (bands, fft / 2 + 1), and the upper edge of each in Hz."""
    top = 2595.0 * torch.log10(torch.tensor(1.0 + RATE_OUT / 2 / 700.0))
    edges = 700.0 * (10.0 ** (torch.linspace(0.0, float(top), bands + 2) / 2595.0) - 1.0)
    # A triangle narrower than the bins would be empty: widen it to one bin on both sides.
    width = RATE_OUT / fft
    centre = edges[1:-1, None]
    left = torch.minimum(edges[:-2, None], centre - width)
    right = torch.maximum(edges[2:, None], centre + width)
    bins = torch.arange(fft // 2 + 1) * width
    triangles = torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp(min=0.0)
    return triangles / triangles.sum(dim=1, keepdim=True), right.flatten()


@cache
def _third_octaves() -> Tensor:
    centres = _STOI_LOWEST_HZ * 2.0 ** (torch.arange(_STOI_BANDS) / 3.0)
    bins = torch.arange(_STOI_FFT // 2 + 1) * RATE_OUT / _STOI_FFT
    low, high = centres[:, None] * 2.0 ** (-1 / 6), centres[:, None] * 2.0 ** (1 / 6)
    return ((bins >= low) & (bins < high)).float()


@cache
def _window(length: int) -> Tensor:
    return torch.hann_window(length)


def _known_bins(fft: int, bandwidth_hz: Tensor) -> Tensor:
    """(B, fft / 2 + 1, 1): 1 in the bins within the recording's bandwidth."""
    bins = torch.arange(fft // 2 + 1, device=bandwidth_hz.device) * RATE_OUT / fft
    return (bins[None] <= bandwidth_hz[:, None] - _GUARD_HZ).float().unsqueeze(2)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / (mask.sum() * values.shape[2])


def _centred(x: Tensor, mask: Tensor) -> Tensor:
    mean = (x * mask).sum(3, keepdim=True) / (mask.sum(3, keepdim=True) + 1e-7)
    return (x - mean) * mask
