"""Rows of a table of tokens in Parquet, with the columns id, tokens, seconds and model; needs pyarrow."""

import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from neucodec_streaming.config import TOKENS_PER_SECOND
from neucodec_streaming.errors import TokenError
from neucodec_streaming.tokens import TokenRecord

SCHEMA = pa.schema(
    [("id", pa.string()), ("tokens", pa.list_(pa.uint16())), ("seconds", pa.float64()), ("model", pa.string())],
    {"rate": str(TOKENS_PER_SECOND)},
)


def table_of(records: Sequence[TokenRecord]) -> pa.Table:
    """A table with a row for each record."""
    return pa.table({name: [getattr(record, name) for record in records] for name in SCHEMA.names}, SCHEMA)


def records_of(rows: pa.Table | pa.RecordBatch) -> list[TokenRecord]:
    """The rows of a table from any writer; other columns are ignored. Raises TokenError for anything but a table of
    tokens.
    """
    if missing := set(SCHEMA.names) - set(rows.schema.names):
        raise TokenError(
            f"column {', '.join(sorted(missing))} is missing: a table of tokens has {', '.join(SCHEMA.names)}"
        )
    try:
        columns = [rows.column(name).cast(kind) for name, kind in zip(SCHEMA.names, SCHEMA.types, strict=True)]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise TokenError(f"not a table of tokens: {error}") from None
    table = pa.table(columns, SCHEMA)
    if any(column.null_count for column in (*table.columns, pc.list_flatten(table["tokens"]))):
        raise TokenError(f"some fields are empty: every row needs {', '.join(SCHEMA.names)}")
    return [
        TokenRecord(row["id"], np.array(row["tokens"], np.uint16), row["seconds"], row["model"])
        for row in table.to_pylist()
    ]


def record_from_parquet(payload: bytes) -> TokenRecord:
    """The only row of a Parquet file. Raises TokenError."""
    try:
        file = pq.ParquetFile(io.BytesIO(payload))
        if file.metadata.num_rows != 1:
            count = file.metadata.num_rows
            raise TokenError(f"the table has {count} recordings, not one: use `neucodec-server decode-files`")
        return records_of(file.read())[0]
    except (OSError, pa.ArrowException) as error:
        raise TokenError(f"not a Parquet file ({error})") from None


def record_to_parquet(record: TokenRecord) -> bytes:
    """Encodes one row as a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table_of([record]), buffer, compression="zstd")
    return buffer.getvalue()
