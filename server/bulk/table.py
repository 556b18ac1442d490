"""A table of tokens: a folder of Parquet parts with the columns id, tokens, seconds and model.

Parts are only added, each under its name when it is complete, so a killed job leaves a valid table and the next job
continues it. One job writes at a time.
"""

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from neucodec_streaming.errors import ConfigError, TokenError
from neucodec_streaming.token_table import SCHEMA, records_of, table_of
from neucodec_streaming.tokens import TokenRecord

PART_ROWS = 10_000
SAVE_EVERY_S = 60.0
ROWS_AT_ONCE = 64


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Creates the folder if needed and locks out other jobs. Raises ConfigError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written to ({error.strerror}): choose another folder") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another job is writing to {folder}: wait until it ends, or choose another folder"
            ) from None
        yield


class TokenTable:
    """A table for rows of one model, with one writer; `done` has the ids of the saved rows.

    As a context manager it saves at the end. Raises ConfigError for a folder with tokens of another model.
    """

    def __init__(self, folder: Path, model: str, save_every_s: float = SAVE_EVERY_S) -> None:
        self.done = {row_id for part in _parts(folder) for row_id in _ids(part, model)}
        self._folder, self._save_every_s = folder, save_every_s
        self._rows: list[TokenRecord] = []
        self._saved_s = time.monotonic()

    def add(self, rows: Sequence[TokenRecord]) -> None:
        """Adds rows; saves them every PART_ROWS and every `save_every_s`."""
        self._rows += rows
        if len(self._rows) >= PART_ROWS or time.monotonic() - self._saved_s >= self._save_every_s:
            self.save()

    def save(self) -> None:
        """Writes unsaved rows as a part."""
        if self._rows:
            last = max((int(part.stem.removeprefix("part-")) for part in _parts(self._folder)), default=-1)
            target = self._folder / f"part-{last + 1:05}.parquet"
            partial = self._folder / ".partial"
            with partial.open("wb") as file:
                pq.write_table(table_of(self._rows), file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            partial.rename(target)
            self.done |= {row.id for row in self._rows}
            self._rows = []
        self._saved_s = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.save()


def read_rows(source: Path) -> Iterator[TokenRecord]:
    """The rows of a table, a folder or one of its parts. Raises ConfigError for anything else."""
    for part in _given_parts(source):
        with _open(part) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=SCHEMA.names):
                try:
                    yield from records_of(batch)
                except TokenError as error:
                    raise ConfigError(f"{part}: {error}") from None


def count_rows(source: Path) -> int:
    """Number of rows that read_rows yields. Raises as it does."""
    return sum(_open(part).metadata.num_rows for part in _given_parts(source))


def _given_parts(source: Path) -> list[Path]:
    parts = _parts(source) if source.is_dir() else [source]
    if not parts:
        raise ConfigError(f"{source} contains no part-*.parquet: specify a table of tokens")
    return parts


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-[0-9]*.parquet"))


def _open(part: Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(part)
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f"{part} cannot be read as Parquet ({error}): specify a table of tokens") from None
    missing = set(SCHEMA.names) - set(file.schema_arrow.names)
    if missing:
        raise ConfigError(
            f"{part} has no column {', '.join(sorted(missing))}: a table of tokens has {', '.join(SCHEMA.names)}"
        )
    return file


def _ids(part: Path, model: str) -> list[str]:
    with _open(part) as file:
        table = file.read(columns=["id", "model"])
    others = set(table["model"].unique().to_pylist()) - {model}
    if others:
        raise ConfigError(f"{part} has tokens of model {others.pop()}, not of {model}: choose another folder")
    return table["id"].to_pylist()
