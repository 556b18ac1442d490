"""What workers and the process that commands them exchange; needs no torch."""

from dataclasses import dataclass
from pathlib import Path

MAX_SECONDS = 120.0
"""Of a recording, unless told otherwise."""


@dataclass(frozen=True)
class AudioFile:
    """A recording, and the name of its row in the table of tokens: its path below the folder of the job, with `/`.

    `row`: of a Parquet file at `path` that holds the recording itself.
    """

    id: str
    path: Path
    row: int | None = None


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
