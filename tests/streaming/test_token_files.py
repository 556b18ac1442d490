"""Token files name their model in three formats; other formats hold only tokens, and damaged files are refused."""

import io
import json
import sys
import zipfile

import numpy as np
import pyarrow.parquet as pq
import pytest

from neucodec_streaming.errors import ConfigError, TokenError
from neucodec_streaming.token_files import (
    FORMS,
    WRITABLE_FORMS,
    record_from_bytes,
    record_to_bytes,
    require_form,
)
from neucodec_streaming.tokens import record_of

TOKENS = np.array([0, 1, 40_000, 65_535], np.uint16)
RECORD = record_of(TOKENS, "nano-2", "speech")


@pytest.mark.parametrize("form", WRITABLE_FORMS)
def test_tokens_are_read_back_with_their_model_if_the_format_stores_it(form):
    record = record_from_bytes(record_to_bytes(RECORD, form), form)
    assert record.tokens.dtype == np.uint16 and record.tokens.tolist() == TOKENS.tolist()
    assert record.model == ("nano-2" if form in ("npz", "json", "parquet") else "")
    assert record.seconds == 0.08
    empty = record_from_bytes(record_to_bytes(record_of(np.zeros(0, np.uint16)), form), form)
    assert empty.tokens.size == 0 and empty.model == ""


def test_raw_files_contain_only_tokens():
    assert record_to_bytes(RECORD, "raw") == TOKENS.astype("<u2").tobytes()


def test_files_with_records_are_valid_json_npz_and_parquet():
    fields = {"model": "nano-2", "rate": 50, "seconds": 0.08}
    assert json.loads(record_to_bytes(RECORD, "json")) == fields | {"tokens": TOKENS.tolist()}
    arrays = np.load(io.BytesIO(record_to_bytes(RECORD, "npz")))
    assert {name: arrays[name].item() for name in fields} == fields and arrays["tokens"].tolist() == TOKENS.tolist()
    table = pq.read_table(io.BytesIO(record_to_bytes(RECORD, "parquet")))
    assert table.to_pylist() == [{"id": "speech", "tokens": TOKENS.tolist(), "seconds": 0.08, "model": "nano-2"}]
    assert table.schema.metadata[b"rate"] == b"50"


def test_bare_json_lists_are_read_too():
    assert record_from_bytes(b"[1, 2]\n[3]", "json").tokens.tolist() == [1, 2, 3]
    assert record_from_bytes(b'{"tokens": [1]}', "json").tokens.tolist() == [1]


def _npz(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _with_damaged_header() -> bytes:
    """Its checksum is right, and numpy gives up on the header with an error of the module tokenize."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("tokens.npy", record_to_bytes(RECORD, "npy").replace(b"{'descr'", b"\xe7'descr'"))
    return buffer.getvalue()


def _two_rows() -> bytes:
    rows = pq.read_table(io.BytesIO(record_to_bytes(RECORD, "parquet"))).to_batches()
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, rows[0].schema) as writer:
        for row in rows * 2:
            writer.write_batch(row)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("form", "payload", "says"),
    [
        ("json", b'{"tokens": [1, 2', "not valid JSON"),
        ("json", b'{"codes": [1]}', "no list 'tokens'; its keys are ..codes"),
        ("json", b'{"tokens": [1, 70000]}', "token 1 is 70000"),
        ("json", b'{"tokens": [1], "rate": 75}', "rate is 75"),
        ("npz", b"PK\3\4 and no more", "not an .npz file"),
        ("npz", record_to_bytes(RECORD, "npz")[:-30], "not an .npz file"),
        ("npz", _npz(codes=TOKENS), "not an .npz file with an array 'tokens'"),
        ("npz", _npz(tokens=np.array([object()])), "not an .npz file"),
        ("npz", _npz(tokens=np.array([1.5])), "pass integers"),
        ("npz", _with_damaged_header(), "not an .npz file"),
        ("npz", _npz(tokens=TOKENS, rate=np.array(75)), "rate is 75"),
        ("parquet", b"PAR1 and no more", "not a Parquet file"),
        ("parquet", _two_rows(), "2 recordings, not one"),
    ],
)
def test_an_invalid_token_file_is_refused_with_the_reason(form, payload, says):
    with pytest.raises(TokenError, match=says):
        record_from_bytes(payload, form)


def test_an_oversized_archive_is_refused_before_it_is_read():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tokens.npy", bytes(80 * 1024 * 1024))
    with pytest.raises(TokenError, match="bytes unpacked"):
        record_from_bytes(buffer.getvalue(), "npz")


def test_without_pyarrow_parquet_names_the_extra_and_other_formats_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "neucodec_streaming.token_table", raising=False)
    for form in set(FORMS.values()) - {"parquet"}:
        require_form(form)
    with pytest.raises(ConfigError, match=r"install the extra 'bulk'"):
        require_form("parquet")
