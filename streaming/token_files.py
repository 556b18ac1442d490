"""Whole token files as bytes: bare tokens, or a record that names their model. No torch, no I/O.

    .tok, .bin   raw       bare, little-endian uint16
    .npy         npy       bare
    .pt          pt        bare, read only
    .txt         text      bare
    .json        json      {"model": "nano-2", "rate": 50, "seconds": 0.06, "tokens": [1, 2, 3]}; also read: bare lists
    .npz         npz       numpy arrays of the same four names
    .parquet     parquet   one row of a table of tokens, as `neucodec-server encode-files` writes them; needs pyarrow

`rate` is tokens a second. Invalid content raises TokenError.
"""

import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from neucodec_streaming.config import TOKENS_PER_SECOND
from neucodec_streaming.errors import ConfigError, TokenError
from neucodec_streaming.lazy import missing_extra
from neucodec_streaming.tags import TAGS
from neucodec_streaming.tokens import (
    TokenRecord,
    check_tokens,
    record_of,
    tokens_from_bytes,
    tokens_from_json,
    tokens_from_npy,
    tokens_from_text,
    tokens_to_bytes,
    tokens_to_npy,
    tokens_to_text,
)
from neucodec_streaming.torch_file import integers_from_pt

FORMS = {
    ".tok": "raw",
    ".bin": "raw",
    ".npy": "npy",
    ".npz": "npz",
    ".pt": "pt",
    ".txt": "text",
    ".json": "json",
    ".parquet": "parquet",
}
"""Extension of a token file -> its form."""
WRITABLE_FORMS = ("raw", "npy", "npz", "text", "json", "parquet")
_MAX_NPZ_BYTES = 64 * 1024 * 1024


def record_from_bytes(payload: bytes, form: str, tags: Sequence[str] = TAGS) -> TokenRecord:
    """Decodes a token file. Raises TokenError, and ConfigError for Parquet without pyarrow."""
    if form in _RECORDS:
        return _RECORDS[form][0](payload)
    if form == "text":
        return record_of(tokens_from_text(payload.decode("utf-8", "replace"), tags))
    return record_of(_BARE[form](payload))


def record_to_bytes(record: TokenRecord, form: str) -> bytes:
    """Encodes a token file; bare forms keep only the tokens. Raises ConfigError as above."""
    if form in _RECORDS:
        return _RECORDS[form][1](record)
    if form == "text":
        return tokens_to_text(record.tokens).encode() + b"\n"
    return {"raw": tokens_to_bytes, "npy": tokens_to_npy}[form](record.tokens)


def require_form(form: str) -> None:
    """Raises ConfigError if the form needs a library that is missing."""
    if form == "parquet":
        _parquet()


def _from_json(payload: bytes) -> TokenRecord:
    text = payload.decode("utf-8", "replace")
    if not text.lstrip().startswith("{"):
        return record_of(tokens_from_json(text))
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TokenError(f"not valid JSON ({error}): expected an object with tokens, or a list of them") from None
    if not isinstance(content.get("tokens"), list):
        raise TokenError(f"the JSON object has no list 'tokens'; its keys are {sorted(content)[:9]}")
    return _checked(content, tokens_from_json(json.dumps(content["tokens"])))


def _to_json(record: TokenRecord) -> bytes:
    return json.dumps(_fields(record) | {"tokens": record.tokens.tolist()}).encode() + b"\n"


def _from_npz(payload: bytes) -> TokenRecord:
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > _MAX_NPZ_BYTES:
            raise ValueError(f"{size} bytes unpacked, the limit is {_MAX_NPZ_BYTES}")
        with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
            content = {name: arrays[name] for name in ("model", "rate", "tokens") if name in arrays}
        tokens = content["tokens"]
    except Exception as error:  # zipfile and numpy raise many kinds of errors
        raise TokenError(f"not an .npz file with an array 'tokens' ({error})") from None
    return _checked({name: value.item() for name, value in content.items() if value.ndim == 0}, check_tokens(tokens))


def _to_npz(record: TokenRecord) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, tokens=record.tokens, **_fields(record))
    return buffer.getvalue()


def _fields(record: TokenRecord) -> dict[str, Any]:
    return {"model": record.model, "rate": TOKENS_PER_SECOND, "seconds": record.seconds}


def _checked(fields: Mapping[str, Any], tokens: np.ndarray) -> TokenRecord:
    """Raises TokenError for tokens of another rate."""
    rate, model = fields.get("rate", TOKENS_PER_SECOND), fields.get("model", "")
    if rate != TOKENS_PER_SECOND:
        raise TokenError(f"the rate is {rate!r} tokens per second: NeuCodec tokens have {TOKENS_PER_SECOND}")
    return record_of(tokens, model if isinstance(model, str) else "")


def _parquet() -> tuple[Callable[[bytes], TokenRecord], Callable[[TokenRecord], bytes]]:
    try:
        from neucodec_streaming.token_table import record_from_parquet, record_to_parquet
    except ModuleNotFoundError as error:
        raise ConfigError(str(missing_extra(error, "a .parquet file"))) from None
    return record_from_parquet, record_to_parquet


_BARE: Mapping[str, Callable[[bytes], np.ndarray]] = {
    "raw": tokens_from_bytes,
    "npy": tokens_from_npy,
    "pt": lambda payload: check_tokens(integers_from_pt(payload)),
}
_RECORDS: Mapping[str, tuple[Callable[[bytes], TokenRecord], Callable[[TokenRecord], bytes]]] = {
    "json": (_from_json, _to_json),
    "npz": (_from_npz, _to_npz),
    "parquet": (lambda payload: _parquet()[0](payload), lambda record: _parquet()[1](record)),
}
