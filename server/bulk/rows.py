"""What workers and the process that commands them exchange; needs no torch."""

from dataclasses import dataclass

MAX_SECONDS = 120.0
"""Of a recording, unless told otherwise."""


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
