"""Codebook usage: the entropies of tokens and of their eight levels of two bits.

A few recordings cannot show all 65,536 codes: N tokens have an entropy of at most log2(N) bits, which is reported too.
The entropy is that of the counts, which underestimates the source's true entropy for the same reason.
"""

import numpy as np

from benchmarks.metrics.nearness import levels_of
from neucodec_streaming.config import CODEBOOK_SIZE


def code_usage(tokens: np.ndarray) -> dict:
    """Tokens uint16 (N,) of all recordings, N > 0 -> their number, entropies in bits, share of the codebook seen."""
    return {
        "tokens": len(tokens),
        "entropy_bits": entropy_bits(tokens),
        "entropy_bits_at_most": float(min(np.log2(len(tokens)), np.log2(CODEBOOK_SIZE))),
        "share_seen": len(np.unique(tokens)) / CODEBOOK_SIZE,
        "level_entropy_bits": [entropy_bits(column) for column in levels_of(tokens).T],
    }


def entropy_bits(symbols: np.ndarray) -> float:
    _, counts = np.unique(symbols, return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0
