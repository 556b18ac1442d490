"""Shortens audio without changing its pitch: removes a part that resembles the one before it, and joins the ends.

As in WSOLA (Verhelst and Roelands 1993) and the `accelerate` operation of WebRTC's NetEq, the head of the audio is
compared with itself at every lag of a pitch period. The most similar place follows the head by overlap-add, and the
samples in between are removed. Speech is cut by whole pitch periods, noise anywhere, since all places in noise are
similar. Nothing is cut where neither is possible, as at the onset of a word. Pure functions of arrays.
"""

from typing import NamedTuple

import numpy as np

SHORTEST_LAG_MS, LONGEST_LAG_MS = 2.5, 15.0
"""Pitch periods of 400 and 67 Hz."""
OVERLAP_MS = 10
MIN_SIMILARITY = 0.8
"""Normalised correlation above which two parts may be joined at any level."""
QUIET = 10 ** (-12 / 10)
"""Below this share of the recent maximum power, any two parts may be joined."""


class Cut(NamedTuple):
    """`lag` samples are removed; `overlap` (n,) replaces the n samples at the head and the n samples `lag` later."""

    lag: int
    overlap: np.ndarray


class TimeScale:
    """Finds cuts in audio at `rate`. It needs `ahead_samples` of audio; `longest_lag` is the longest cut."""

    def __init__(self, rate: int) -> None:
        self._overlap = int(OVERLAP_MS * rate / 1000)
        self._shortest = max(1, int(SHORTEST_LAG_MS * rate / 1000))
        self.longest_lag = int(LONGEST_LAG_MS * rate / 1000)
        self.ahead_samples = self._overlap + self.longest_lag

    def cut(self, ahead: np.ndarray, loudest_power: float) -> Cut | None:
        """The best cut at the head of float32 (ahead_samples,); None if every cut would be audible.

        `loudest_power` is the mean square of the loudest recent part.
        """
        head, later = ahead[: self._overlap], ahead[self._shortest :]
        products = np.correlate(later, head, "valid")
        squares = np.concatenate([[0.0], np.cumsum(np.square(later, dtype=np.float64))])
        powers = squares[self._overlap :] - squares[: -self._overlap]
        power = float(np.dot(head, head))
        similarity = products / np.sqrt(np.maximum(powers * power, 1e-20))
        best = int(np.argmax(similarity))
        is_quiet = max(power, float(powers[best])) <= QUIET * loudest_power * self._overlap
        if similarity[best] < MIN_SIMILARITY and not is_quiet:
            return None
        lag = self._shortest + best
        return Cut(lag, overlap_add(head, ahead[lag : lag + self._overlap], float(similarity[best])))


def overlap_add(before: np.ndarray, after: np.ndarray, similarity: float) -> np.ndarray:
    """Cross-fades `before` into `after`, float32 (n,) each, at constant loudness.

    Amplitudes of similar parts add up, powers of dissimilar ones: `similarity` is their correlation.
    """
    rising = np.sin(np.linspace(0, np.pi / 2, before.size + 2, dtype=np.float32)[1:-1]) ** 2
    falling = 1 - rising
    alike = min(max(similarity, 0.0), 1.0)
    level = np.sqrt(falling**2 + rising**2 + 2 * alike * falling * rising)
    return (before * falling + after * rising) / level
