"""A token table is complete at any moment, belongs to one model, and is validated on reading."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neucodec_streaming.errors import ConfigError
from neucodec_streaming.server.bulk.table import TokenTable, count_rows, read_rows
from neucodec_streaming.token_table import SCHEMA
from neucodec_streaming.tokens import TokenRecord


def row(name: str, model: str = "m") -> TokenRecord:
    return TokenRecord(name, np.arange(3, dtype=np.uint16), 0.06, model)


def test_written_rows_are_read_back_and_known_to_the_next_job(tmp_path):
    with TokenTable(tmp_path, "m") as table:
        table.add([row("a"), row("b")])
        table.save()
        table.add([row("c")])
    assert [one.id for one in read_rows(tmp_path)] == ["a", "b", "c"] and count_rows(tmp_path) == 3
    assert all(one.tokens.tolist() == [0, 1, 2] and one.tokens.dtype == np.uint16 for one in read_rows(tmp_path))
    assert TokenTable(tmp_path, "m").done == {"a", "b", "c"}
    assert pq.read_table(tmp_path).schema.equals(SCHEMA), "the folder is a data set to whoever reads Parquet"


def test_a_table_of_another_model_is_refused(tmp_path):
    with TokenTable(tmp_path, "m") as table:
        table.add([row("a")])
    with pytest.raises(ConfigError, match="tokens of model m, not of other"):
        TokenTable(tmp_path, "other")


def test_temporary_files_of_a_killed_job_are_not_read_as_parts(tmp_path):
    (tmp_path / ".partial").write_bytes(b"half")
    with TokenTable(tmp_path, "m") as table:
        table.add([row("a")])
    assert [one.id for one in read_rows(tmp_path)] == ["a"] and not (tmp_path / ".partial").exists()


def test_files_other_than_tables_are_refused_by_name(tmp_path):
    (tmp_path / "part-00000.parquet").write_bytes(b"text")
    with pytest.raises(ConfigError, match=r"part-00000.parquet cannot be read"):
        TokenTable(tmp_path, "m")
    pq.write_table(pa.table({"id": ["a"], "tokens": [[1]]}), tmp_path / "part-00000.parquet")
    with pytest.raises(ConfigError, match="has no column model, seconds"):
        next(read_rows(tmp_path))
    with pytest.raises(ConfigError, match="no part"):
        next(read_rows(tmp_path.parent))


@pytest.mark.parametrize("tokens", [[70_000], [-1], [None], None, ["a"]])
def test_invalid_tokens_in_a_table_are_refused(tokens, tmp_path):
    columns = {"id": ["a"], "tokens": [tokens], "seconds": [1.0], "model": ["m"]}
    pq.write_table(pa.table(columns), tmp_path / "part-00000.parquet")
    with pytest.raises(ConfigError, match=r"part-00000.parquet: (not a table of tokens|some fields are empty)"):
        list(read_rows(tmp_path))


def test_tokens_of_another_integer_type_are_read(tmp_path):
    columns = {"id": ["a", "b"], "tokens": [[1, 65_535], []], "seconds": [1, 0], "model": ["m", "m"], "more": [0, 0]}
    pq.write_table(pa.table(columns), tmp_path / "part-00000.parquet")
    assert [row.tokens.tolist() for row in read_rows(tmp_path)] == [[1, 65_535], []]
