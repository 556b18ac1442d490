"""Damage to tokens in a bad channel: flipped bits, or lost tokens at known places. Each kind has a fixed seed."""

from collections.abc import Callable
from functools import partial
from zlib import crc32

import numpy as np

TOKEN_BITS = 16

DamageTokens = Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""Tokens uint16 (F,) and a random generator -> tokens (F,) as received, and which are lost, bool (F,)."""


def flipping(share: float, tokens: np.ndarray, chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Flips each bit independently with this probability; the decoder does not know which."""
    flips = chance.random((len(tokens), TOKEN_BITS)) < share
    masks = (flips << np.arange(TOKEN_BITS)).sum(axis=1).astype(np.uint16)
    return tokens ^ masks, np.zeros(len(tokens), bool)


def losing(share: float, tokens: np.ndarray, chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Loses each token independently with this probability; the decoder knows which, as after a lost packet."""
    return tokens, chance.random(len(tokens)) < share


DAMAGES: dict[str, DamageTokens] = {
    "1 % of bits flipped": partial(flipping, 0.01),
    "5 % of bits flipped": partial(flipping, 0.05),
    "10 % of bits flipped": partial(flipping, 0.1),
    "1 % of tokens lost": partial(losing, 0.01),
    "5 % of tokens lost": partial(losing, 0.05),
}


def damaged(name: str, recording: str, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same names give the same damage."""
    return DAMAGES[name](tokens, np.random.default_rng(crc32(f"{name}/{recording}".encode())))
