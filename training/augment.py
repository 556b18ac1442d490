"""Augmentation of training crops for live microphones and lossy channels: noise, rooms, telephones.

Every function is pure: (samples, generator) in, samples out. Noise and rooms change only the model's input, so that it
learns to output clean speech; a telephone changes input and target, since the lost band cannot be recovered.
"""

from dataclasses import dataclass

import numpy as np
from scipy.signal import fftconvolve

from training.data import HOP_IN, RATE_IN, RATE_OUT


@dataclass(frozen=True)
class Augmentation:
    """The share of crops that each change applies to, and its range."""

    noise_share: float = 0.15
    noise_db: tuple[float, float] = (12.0, 35.0)
    room_share: float = 0.08
    room_seconds: tuple[float, float] = (0.1, 0.5)
    room_direct_db: tuple[float, float] = (3.0, 15.0)
    telephone_share: float = 0.03
    telephone_hz: tuple[float, float] = (3_300.0, 4_000.0)


def augmented(
    heard: np.ndarray, target: np.ndarray, rng: np.random.Generator, how: Augmentation
) -> tuple[np.ndarray, np.ndarray]:
    """Returns heard (T,) at 16 kHz and target (T,) at 24 kHz, both float32."""
    if rng.random() < how.telephone_share:
        top_hz = rng.uniform(*how.telephone_hz)
        heard, target = low_passed(heard, RATE_IN, top_hz), low_passed(target, RATE_OUT, top_hz)
    if rng.random() < how.room_share:
        heard = in_room(heard, rng.uniform(*how.room_seconds), rng.uniform(*how.room_direct_db), rng)
    if rng.random() < how.noise_share:
        heard = noisy(heard, rng.uniform(*how.noise_db), rng)
    return heard, target


def noisy(pcm: np.ndarray, ratio_db: float, rng: np.random.Generator) -> np.ndarray:
    """Adds stationary noise of a random slope (white to brown), `ratio_db` below the crop's level."""
    spectrum = np.fft.rfft(rng.standard_normal(len(pcm)))
    spectrum *= np.maximum(np.arange(len(spectrum)), len(pcm) * 50 // RATE_IN + 1.0) ** -rng.uniform(0.0, 1.0)
    noise = np.fft.irfft(spectrum, len(pcm))
    level = np.sqrt(np.mean(pcm**2)) * 10 ** (-ratio_db / 20)
    return (pcm + noise * level / (np.sqrt(np.mean(noise**2)) + 1e-9)).astype(np.float32)


def in_room(pcm: np.ndarray, seconds: float, direct_db: float, rng: np.random.Generator) -> np.ndarray:
    """Adds a diffuse tail that decays by 60 dB in `seconds` and has `direct_db` less energy than the direct sound."""
    time = np.arange(HOP_IN // 8, round(seconds * RATE_IN))
    tail = rng.standard_normal(len(time)) * 10 ** (-3.0 * time / (seconds * RATE_IN))
    tail *= 10 ** (-direct_db / 20) / (np.sqrt(np.sum(tail**2)) + 1e-9)
    echo = fftconvolve(pcm, tail)[: len(pcm) - time[0]]
    return (pcm + np.concatenate([np.zeros(time[0]), echo])).astype(np.float32)


def low_passed(pcm: np.ndarray, rate: int, top_hz: float) -> np.ndarray:
    """Removes content above `top_hz`, over a slope of 200 Hz."""
    spectrum = np.fft.rfft(pcm)
    hertz = np.arange(len(spectrum)) * rate / len(pcm)
    return np.fft.irfft(spectrum * np.clip((top_hz + 200.0 - hertz) / 200.0, 0.0, 1.0), len(pcm)).astype(np.float32)
