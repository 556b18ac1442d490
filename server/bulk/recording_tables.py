"""Tables of recordings: Parquet or CSV, with a path or the audio itself in each row.

A table has a column `path` (relative to the table's folder) or `audio` (a file's bytes, or the struct of bytes and path
that Hugging Face `datasets` writes), and optionally `id`, by default the path. Only ids and paths are read here; audio
in the table is read by its row, where it is coded.
"""

import io
from bisect import bisect
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from neucodec_streaming.errors import ConfigError, InputError
from neucodec_streaming.server.bulk.rows import AudioFile

ENDINGS = (".parquet", ".csv", ".tsv")
ID, PATH, AUDIO = "id", "path", "audio"


def table_files(source: Path) -> list[Path]:
    """The files of a table: one, or all Parquet files directly in a folder; none if `source` is not a table."""
    if source.is_file():
        return [source] if source.suffix.lower() in ENDINGS else []
    return sorted(source.glob("*.parquet")) if source.is_dir() else []


def table_recordings(files: list[Path]) -> list[AudioFile]:
    """The recording of every row, in order. Raises ConfigError for an invalid table or a repeated id."""
    found = [recording for file in files for recording in _recordings(file)]
    seen: set[str] = set()
    for recording in found:
        if recording.id in seen:
            raise ConfigError(f"{files[0]} contains the id {recording.id!r} twice: make the ids unique")
        seen.add(recording.id)
    if not found:
        raise ConfigError(f"{files[0]} has no rows: specify a table of recordings")
    return found


def stored_audio(file: Path, row: int) -> io.BytesIO:
    """The audio file in a row. Raises InputError if it has none, or there is no such row any more."""
    starts = _group_starts(file)
    group = bisect(starts, row) - 1
    if group == len(starts) - 1:
        raise InputError(
            f"{file} has {starts[-1]} rows, fewer than when the job started: restore it, and run the job again"
        )
    value = _audio(file, group)[row - starts[group]].as_py()
    data = value.get("bytes") if isinstance(value, dict) else value
    if not data:
        raise InputError(f"row {row} of {file} has no audio")
    return io.BytesIO(data)


def _recordings(file: Path) -> Iterator[AudioFile]:
    try:
        table, audio = _names(file)
    except (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ConfigError(f"{file} cannot be read as a table: {error}") from None
    for row in range(len(table)):
        id, path = (table[name][row].as_py() if name in table.column_names else None for name in (ID, PATH))
        name = path if id is None else str(id)
        if name is None or (path is None and not audio):
            raise ConfigError(f"row {row} of {file} has no {PATH} or {ID}: fill it in, or remove the row")
        yield AudioFile(name, file, row) if audio else AudioFile(name, file.parent / str(path))


def _names(file: Path) -> tuple[pa.Table, bool]:
    """The columns id and path if present, and whether the audio is in the table."""
    if file.suffix.lower() != ".parquet":
        parsed = csv.ParseOptions(delimiter="\t" if file.suffix.lower() == ".tsv" else ",")
        text = csv.ConvertOptions(column_types={ID: pa.string(), PATH: pa.string()})
        table = csv.read_csv(file, parse_options=parsed, convert_options=text)
        _check(file, PATH in table.column_names, table.column_names)
        return table, False
    schema = pq.read_schema(file)
    _check(file, bool({PATH, AUDIO} & set(schema.names)), schema.names)
    in_table = AUDIO in schema.names
    wanted = [name for name in (ID, PATH) if name in schema.names]
    if in_table and pa.types.is_struct(schema.field(AUDIO).type) and not wanted:
        nested = pq.ParquetFile(file).read(columns=[f"{AUDIO}.{PATH}"])[AUDIO].combine_chunks()
        return pa.table({PATH: nested.field(PATH)}), True
    if in_table and not wanted:
        raise ConfigError(f"{file} has audio, but no column {ID} or {PATH} with its names: add one")
    return pq.read_table(file, columns=wanted), in_table


def _check(file: Path, is_table: bool, names: list[str]) -> None:
    if not is_table:
        raise ConfigError(f"{file} has the columns {', '.join(names)}: a table of recordings needs {PATH} or {AUDIO}")


@lru_cache
def _group_starts(file: Path) -> list[int]:
    """The first row of each row group, and the number of rows."""
    metadata = pq.read_metadata(file)
    rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return list(accumulate(rows, initial=0))


@lru_cache(maxsize=2)
def _audio(file: Path, group: int) -> Any:
    """Neighbouring rows share the result."""
    return pq.ParquetFile(file).read_row_group(group, columns=[AUDIO])[AUDIO]
