"""Types exchanged between workers and their parent process; needs no torch."""

from dataclasses import dataclass
from pathlib import Path

MAX_SECONDS = 120.0
"""Default limit of a recording's duration."""


@dataclass(frozen=True)
class AudioFile:
    """A recording, and its row's id in the table of tokens: its path below the job's folder, with `/`.

    `row`: of a Parquet file at `path` that contains the recording itself.
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
    """An audio file that was written, or already existed."""

    id: str
    seconds: float
    is_new: bool
