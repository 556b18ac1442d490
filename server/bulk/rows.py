"""What workers and the process that commands them exchange; needs no torch."""

from dataclasses import dataclass

import numpy as np

MAX_SECONDS = 120.0
"""Of a recording, unless told otherwise."""


@dataclass(frozen=True)
class TokenRow:
    """A row of the table: uint16 tokens (F,) of a recording, its duration, and the fingerprint of the model."""

    id: str
    tokens: np.ndarray
    seconds: float
    model: str


@dataclass(frozen=True)
class Skipped:
    """A recording or row that could not be used."""

    id: str
    reason: str


@dataclass(frozen=True)
class WrittenFile:
    """An audio file that was written, or was there already."""

    id: str
    seconds: float
    is_new: bool
