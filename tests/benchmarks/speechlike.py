"""A sound with the harmonics and syllables of speech, and codecs with a known effect on it."""

import numpy as np
import soxr


def speechlike(seconds: float = 2.0) -> np.ndarray:
    """Harmonics with syllables, float32 at 16 kHz."""
    t = np.arange(int(16_000 * seconds)) / 16_000
    voice = sum(np.sin(2 * np.pi * 140 * k * t + k) / k for k in range(1, 30))
    return (0.1 * voice * np.abs(np.sin(2 * np.pi * 2.1 * t))).astype(np.float32)


def copied(pcm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A codec that loses only the incomplete last hop."""
    count = len(pcm) // 320
    return np.arange(count, dtype=np.uint16), soxr.resample(pcm[: count * 320], 16_000, 24_000)


def replaced_by_noise(pcm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keeps only the length of the recording."""
    count = len(pcm) // 320
    noise = np.random.default_rng(0).standard_normal(count * 480).astype(np.float32) * 0.1
    return np.zeros(count, np.uint16), noise
