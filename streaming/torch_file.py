"""Reads the integer tensor of a `.pt` file, without torch and without executing the file.

torch.save writes a zip: `data.pkl` describes how to rebuild the tensor, `data/0` holds its numbers. A pickle is a
program, so the standard library's unpickler is restricted to the names in the pickle of one tensor, which do nothing
here, and to its operations: others can set attributes, or take hours and all memory with a few bytes (nested keys, memo
indices). Format: torch/serialization.py, version 3.
"""

import io
import math
import pickle
import pickletools
import zipfile
from typing import Any, NamedTuple

import numpy as np

from neucodec_streaming.errors import TokenError

_STORAGES = {"ByteStorage": "u1", "CharStorage": "i1", "ShortStorage": "i2", "IntStorage": "i4", "LongStorage": "i8"}
_MAX_PICKLE_BYTES = 64 * 1024
_MAX_TENSOR_BYTES = 64 * 1024 * 1024
_MAX_AXES = 3
_OPERATIONS = {"PROTO", "STOP", "GLOBAL", "BINPERSID", "REDUCE", "BINPUT", "MARK"}
_OPERATIONS |= {"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
_OPERATIONS |= {"BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "NEWTRUE", "NEWFALSE"}


class _Tensor(NamedTuple):
    """Arguments of torch._utils._rebuild_tensor_v2; `storage`: ("storage", type, key, device, count)."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any
    requires_grad: Any = False
    hooks: Any = None


class _Unpickler(pickle.Unpickler):
    """Resolves only the names in the pickle of one integer tensor."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Tensor
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        raise _refuse(f"its pickle names {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        return pid


def _refuse(why: str) -> TokenError:
    return TokenError(
        f"this .pt file is not one integer tensor ({why}): save it with torch.save(tokens, path), or as .npy"
    )


def integers_from_pt(payload: bytes) -> np.ndarray:
    """Decodes a `.pt` file with one integer tensor to an integer array of its shape. Raises TokenError."""
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise _refuse(f"{len(pickles)} entries named data.pkl, expected one")
            folder = pickles[0].removesuffix("data.pkl")
            dtype, key, count, tensor = _description(_entry(archive, pickles[0], _MAX_PICKLE_BYTES))
            big = f"{folder}byteorder" in archive.namelist() and _entry(archive, f"{folder}byteorder", 16) == b"big"
            numbers = _entry(archive, f"{folder}data/{key}", _MAX_TENSOR_BYTES)
    except TokenError:
        raise
    except Exception as error:  # zipfile raises many kinds of errors
        raise _refuse(f"the zip archive is damaged or of an old format: {error}") from None
    number = np.dtype((">" if big else "<") + dtype)
    if len(numbers) != count * number.itemsize:
        raise _refuse(f"{len(numbers)} bytes for {count} numbers of {number.itemsize} bytes")
    _, offset, shape, strides, *_ = tensor
    contiguous = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    size = math.prod(shape)
    steps_fit = all(a == b or n == 1 for a, b, n in zip(strides, contiguous, shape, strict=True))
    small = len(shape) <= _MAX_AXES and all(n <= count for n in shape)
    if not (steps_fit and small and 0 <= offset <= count - size):
        raise _refuse(f"shape {shape}, strides {strides} and offset {offset} in {count} numbers")
    return np.frombuffer(numbers, number)[offset : offset + size].reshape(shape)


def _entry(archive: zipfile.ZipFile, name: str, most_bytes: int) -> bytes:
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > most_bytes:
        raise _refuse(f"{name} is compressed, or its {entry.file_size} bytes are more than {most_bytes}")
    return archive.read(name)


def _description(pickled: bytes) -> tuple[str, str, int, _Tensor]:
    """(type, storage key, count, tensor) from the pickle of one tensor."""
    try:
        for operation, value, _ in pickletools.genops(pickled):
            if operation.name not in _OPERATIONS:
                raise _refuse(f"its pickle contains {operation.name} {value if value is not None else ''}".rstrip())
        tensor = _Unpickler(io.BytesIO(pickled)).load()
    except TokenError:
        raise
    except Exception as error:  # a damaged pickle raises any error
        raise _refuse(f"its pickle is damaged: {error}") from None
    match tensor:
        case _Tensor(("storage", str() as dtype, str() as key, str(), int() as count), int(), tuple(), tuple()):
            sizes = (*tensor.shape, *tensor.strides)
            whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in sizes)
            if dtype in _STORAGES.values() and whole and len(tensor.shape) == len(tensor.strides):
                return dtype, key, count, tensor
    raise _refuse("its pickle describes another object")
