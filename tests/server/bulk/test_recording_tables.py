"""Tables of recordings give the same tokens as files in every layout; invalid tables are named."""

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from neucodec_streaming.errors import ConfigError
from neucodec_streaming.server.bulk.coding import BulkCoder
from neucodec_streaming.server.bulk.recordings import batches, find_recordings
from neucodec_streaming.server.bulk.rows import Skipped
from tests.server.bulk.hosting import write_recordings
from tests.server.hosting import GOLDEN

COUNT = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_recordings(tmp_path_factory.mktemp("recordings"), COUNT)


@pytest.fixture(scope="module")
def coder():
    return BulkCoder(str(GOLDEN))


@pytest.fixture(scope="module")
def wanted(folder, coder):
    return {row.id: row.tokens for row in coder.encode(find_recordings(folder))}


def columns(folder):
    paths = [recording.id for recording in find_recordings(folder)]
    return paths, [(folder / path).read_bytes() for path in paths]


def write_parquet_of_paths(folder, out):
    pq.write_table(pa.table({"path": columns(folder)[0]}), folder / "table.parquet")
    return folder / "table.parquet", {}


def write_csv_of_paths(folder, out):
    paths, _ = columns(folder)
    csv.write_csv(pa.table({"id": range(COUNT), "path": paths, "text": paths}), folder / "table.csv")
    return folder / "table.csv", {str(number): path for number, path in enumerate(paths)}


def write_tsv_of_paths(folder, out):
    paths, _ = columns(folder)
    (folder / "table.tsv").write_text("path\ttext\n" + "".join(f"{path}\thello, you\n" for path in paths))
    return folder / "table.tsv", {}


def write_parts_with_bytes(folder, out):
    paths, audio = columns(folder)
    for part in (0, 1):
        rows = slice(part * 4, part * 4 + 4)
        pq.write_table(pa.table({"id": paths[rows], "audio": audio[rows]}), out / f"{part}.parquet", row_group_size=3)
    return out, {}


def write_hugging_face(folder, out):
    paths, audio = columns(folder)
    structs = [{"bytes": data, "path": path} for path, data in zip(paths, audio, strict=True)]
    pq.write_table(pa.table({"audio": structs, "text": paths}), out / "train.parquet", row_group_size=2)
    return out / "train.parquet", {}


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize(
    "write",
    [write_parquet_of_paths, write_csv_of_paths, write_tsv_of_paths, write_parts_with_bytes, write_hugging_face],
)
def test_a_table_gives_the_tokens_of_its_files(folder, coder, wanted, tmp_path, write, size):
    source, names = write(folder, tmp_path)
    rows = [row for batch in batches(find_recordings(source), size) for row in coder.encode(batch)]
    found = {names.get(row.id, row.id): row.tokens for row in rows}
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_a_row_without_audio_is_skipped_and_named(coder, tmp_path):
    pq.write_table(pa.table({"id": ["a", "b"], "audio": [None, b"RIFF"]}), tmp_path / "table.parquet")
    skipped = coder.encode(find_recordings(tmp_path / "table.parquet"))
    assert [(type(one), one.id) for one in skipped] == [(Skipped, "a"), (Skipped, "b")]
    assert "has no audio" in skipped[0].reason and "cannot be read as audio" in skipped[1].reason


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"text": ["hello"]}, "columns text: a table of recordings needs path or audio"),
        ({"audio": [b"RIFF"]}, "no column id or path"),
        ({"path": ["a.wav", "a.wav"]}, "the id 'a.wav' twice"),
        ({"path": pa.array([], pa.string())}, "has no rows"),
        ({"id": ["a"], "path": pa.array([None], pa.string())}, "row 0 of .* has no path or id"),
    ],
)
def test_a_file_that_is_not_a_table_of_recordings_is_named(tmp_path, table, says):
    pq.write_table(pa.table(table), tmp_path / "table.parquet")
    with pytest.raises(ConfigError, match=says):
        find_recordings(tmp_path / "table.parquet")


def test_a_damaged_table_is_named(tmp_path):
    (tmp_path / "table.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ConfigError, match="cannot be read as a table"):
        find_recordings(tmp_path / "table.parquet")
