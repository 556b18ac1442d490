"""Tokens as a bad channel delivers them: bits flipped, or tokens lost and known to be. Each kind has a fixed seed."""

from collections.abc import Callable
from functools import partial
from zlib import crc32

import numpy as np

TOKEN_BITS = 16

DamageTokens = Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""Tokens uint16 (F,) and a source of chance -> tokens (F,) as they arrive, and which are lost, bool (F,)."""


def flipping(share: float, tokens: np.ndarray, chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Every bit by itself is flipped with this probability, and nobody knows where."""
    flips = chance.random((len(tokens), TOKEN_BITS)) < share
    masks = (flips << np.arange(TOKEN_BITS)).sum(axis=1).astype(np.uint16)
    return tokens ^ masks, np.zeros(len(tokens), bool)


def losing(share: float, tokens: np.ndarray, chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Every token by itself is lost with this probability; the decoder is told which, as after a lost packet."""
    return tokens, chance.random(len(tokens)) < share


DAMAGES: dict[str, DamageTokens] = {
    "1 % of bits flipped": partial(flipping, 0.01),
    "5 % of bits flipped": partial(flipping, 0.05),
    "10 % of bits flipped": partial(flipping, 0.1),
    "1 % of tokens lost": partial(losing, 0.01),
    "5 % of tokens lost": partial(losing, 0.05),
}


def damaged(name: str, recording: str, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One of DAMAGES done to a recording's tokens; the same names give the same damage."""
    return DAMAGES[name](tokens, np.random.default_rng(crc32(f"{name}/{recording}".encode())))
