"""Shortens audio without changing its pitch: leaves out a stretch that is like the one before it, and joins the two.

As in WSOLA (Verhelst and Roelands 1993) and the `accelerate` of WebRTC's NetEq: the head of the audio is compared with
itself a little later, at every lag of a pitch period; the most similar place follows the head by overlap-add, and what
lies between is gone. Speech is cut by whole pitch periods, noise anywhere, since in noise any place is as good. Nothing
is cut where neither is possible, as at the onset of a word. Pure: arrays in, arrays out.
"""

from typing import NamedTuple

import numpy as np

SHORTEST_LAG_MS, LONGEST_LAG_MS = 2.5, 15.0
"""Pitch periods of 400 and 67 Hz."""
OVERLAP_MS = 10
MIN_SIMILARITY = 0.8
"""Normalised correlation of two stretches that may follow one another wherever they are."""
QUIET = 10 ** (-12 / 10)
"""Below this share of the power of the loudest lately, any two stretches may."""


class Cut(NamedTuple):
    """`lag` samples are left out; `overlap` (n,) replaces the n samples at the head and the n samples `lag` later."""

    lag: int
    overlap: np.ndarray


class TimeScale:
    """Finds cuts in audio at `rate`. `ahead_samples` of it are needed; `longest_lag` is the most that one cut takes."""

    def __init__(self, rate: int) -> None:
        self._overlap = int(OVERLAP_MS * rate / 1000)
        self._shortest = max(1, int(SHORTEST_LAG_MS * rate / 1000))
        self.longest_lag = int(LONGEST_LAG_MS * rate / 1000)
        self.ahead_samples = self._overlap + self.longest_lag

    def cut(self, ahead: np.ndarray, loudest_power: float) -> Cut | None:
        """The best cut at the head of float32 (ahead_samples,), None where each would be heard.

        `loudest_power` is the mean square of the loudest stretch lately.
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
    """One stretch that begins as `before` and ends as `after`, float32 (n,) each, at an even loudness.

    Of stretches that are alike the amplitudes add up, of others the powers: `similarity` is their correlation.
    """
    rising = np.sin(np.linspace(0, np.pi / 2, before.size + 2, dtype=np.float32)[1:-1]) ** 2
    falling = 1 - rising
    alike = min(max(similarity, 0.0), 1.0)
    level = np.sqrt(falling**2 + rising**2 + 2 * alike * falling * rising)
    return (before * falling + after * rising) / level
