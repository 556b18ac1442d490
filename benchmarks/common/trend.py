"""Slopes of figures over a long run."""

import statistics
from collections.abc import Sequence
from itertools import combinations


def slope(values: Sequence[float]) -> float:
    """Rise from one value to the next: the median over all pairs (Theil and Sen); 0 for fewer than two."""
    pairs = combinations(enumerate(values), 2)
    return statistics.median([(later - sooner) / (j - i) for (i, sooner), (j, later) in pairs] or [0.0])
