"""The delay of recorded speech against its source, from the cross-correlation of envelopes in 16 bands."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from benchmarks.common.sound_room import RATE

STRETCH_S = 4.0
MAX_S = 2.0
ENVELOPE_RATE = 1000
EDGES_HZ = np.geomspace(150, 7000, 17)
SOUND = 2e-4
"""-74 dBFS; a null sink is silent to the last bit."""


def envelopes(audio: np.ndarray) -> np.ndarray:
    """float32 (n,) at RATE -> magnitudes in each band minus their mean, every millisecond: (16, n // 48)."""
    hop, size = RATE // ENVELOPE_RATE, 512
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(audio, size // 2), size)[: audio.size // hop * hop : hop]
    bins = np.searchsorted(np.fft.rfftfreq(size, 1 / RATE), EDGES_HZ)
    spectrum = np.abs(np.fft.rfft(windows * np.hanning(size).astype(np.float32)))
    bands = np.stack([spectrum[:, a : max(b, a + 1)].mean(axis=1) for a, b in pairwise(bins)])
    return bands**0.5


def delay_ms(mouth: np.ndarray, ear: np.ndarray) -> float:
    """Delay of `ear` (n + MAX_S,) against `mouth` (n,), both at RATE and from the same moment."""
    said, heard = envelopes(mouth), envelopes(ear)
    said -= said.mean(axis=1, keepdims=True)
    size = 1 << (said.shape[1] + heard.shape[1]).bit_length()
    products = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(said, size)))
    return float(np.argmax(products.sum(axis=0)[: heard.shape[1] - said.shape[1]]))


def stretches(audio: np.ndarray) -> Iterator[slice]:
    """The speech in (n,) from its first to its last sound, in pieces of STRETCH_S."""
    first, last = np.flatnonzero(np.abs(audio) > SOUND)[[0, -1]]
    size = round(STRETCH_S * RATE)
    return (slice(start, start + size) for start in range(int(first), int(last) - size, size))


def heard_at(ear: np.ndarray, stretch: slice, later_ms: float = 0.0, longer_s: float = 0.0) -> np.ndarray:
    later = round(later_ms * RATE / 1000)
    return ear[stretch.start + later : stretch.stop + later + round(longer_s * RATE)]


def delays_ms(mouth: np.ndarray, ear: np.ndarray) -> list[float]:
    return [delay_ms(mouth[stretch], heard_at(ear, stretch, longer_s=MAX_S)) for stretch in stretches(mouth)]
