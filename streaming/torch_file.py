"""The one integer tensor of a `.pt` file, without torch and without unpickling anything.

torch.save writes a zip: `data.pkl` says how to rebuild the tensor, `data/0` holds its numbers. A pickle is a program,
so it is not run: the few opcodes that torch writes for one tensor are read by the table below, and anything else
(another global, another opcode, a compressed or oversized entry) is refused. Format: torch/serialization.py, version 3.
"""

import io
import math
import pickletools
import zipfile
from typing import Any

import numpy as np

from neucodec_streaming.errors import TokenError

_STORAGES = {"torch ByteStorage": "u1", "torch CharStorage": "i1", "torch ShortStorage": "i2"}
_STORAGES |= {"torch IntStorage": "i4", "torch LongStorage": "i8"}
_REBUILD = "torch._utils _rebuild_tensor_v2"
_ORDERED = "collections OrderedDict"
_MAX_PICKLE_BYTES = 64 * 1024
_MAX_TENSOR_BYTES = 64 * 1024 * 1024
_MAX_AXES = 3
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _refuse(why: str) -> TokenError:
    return TokenError(
        f"this .pt file is not one integer tensor ({why}): save it with torch.save(tokens, path), or as .npy"
    )


class _Global(str):
    """A name that the pickle mentions; it is only ever compared, never looked up."""


class _Mark:
    """Where a tuple starts on the stack."""


def integers_from_pt(payload: bytes) -> np.ndarray:
    """The bytes of a `.pt` file that holds one integer tensor -> an integer array of its shape. Raises TokenError."""
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise _refuse(f"{len(pickles)} entries named data.pkl")
            folder = pickles[0].removesuffix("data.pkl")
            storage, key, count, offset, shape, strides = _tensor(_entry(archive, pickles[0], _MAX_PICKLE_BYTES))
            big = f"{folder}byteorder" in archive.namelist() and _entry(archive, f"{folder}byteorder", 16) == b"big"
            numbers = _entry(archive, f"{folder}data/{key}", _MAX_TENSOR_BYTES)
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, EOFError) as error:
        raise _refuse(f"the zip is damaged or of an old kind: {error}") from None
    dtype = np.dtype((">" if big else "<") + _STORAGES[storage])
    if len(numbers) != count * dtype.itemsize:
        raise _refuse(f"{len(numbers)} bytes for {count} numbers of {dtype.itemsize} bytes")
    contiguous = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    size = math.prod(shape)
    steps_fit = all(a == b or n == 1 for a, b, n in zip(strides, contiguous, shape, strict=True))
    small = len(shape) <= _MAX_AXES and all(n <= count for n in shape)
    if not (steps_fit and small and 0 <= offset <= count - size):
        raise _refuse(f"shape {shape}, strides {strides} and offset {offset} in {count} numbers")
    return np.frombuffer(numbers, dtype)[offset : offset + size].reshape(shape)


def _entry(archive: zipfile.ZipFile, name: str, most_bytes: int) -> bytes:
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > most_bytes:
        raise _refuse(f"{name} is compressed or holds {entry.file_size} bytes, more than {most_bytes}")
    return archive.read(name)


def _tensor(pickle: bytes) -> tuple[str, str, int, int, tuple[int, ...], tuple[int, ...]]:
    """(storage type, key, count, offset, shape, strides) from the pickle of one tensor."""
    match _top(pickle):
        case (_Global() as rebuild, (("storage", _Global() as storage, str() as key, str(), int() as count), *rest)):
            match rest:
                case [int() as offset, tuple() as shape, tuple() as strides, *_]:
                    sizes = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in (*shape, *strides))
                    if rebuild == _REBUILD and storage in _STORAGES and sizes and len(shape) == len(strides):
                        return storage, key, count, offset, shape, strides
            raise _refuse(f"a tensor of {storage} rebuilt by {rebuild}")
    raise _refuse("its pickle describes something else")


def _top(pickle: bytes) -> Any:
    """What the pickle leaves on the stack, with every call kept as (function, arguments)."""
    stack: list[Any] = []
    try:
        for opcode, value, _ in pickletools.genops(pickle):
            if opcode.name == "STOP":
                (top,) = stack
                return top
            _apply(opcode.name, value, stack)
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise _refuse(f"its pickle is damaged: {error}") from None
    raise _refuse("its pickle does not end")


def _apply(name: str, value: Any, stack: list[Any]) -> None:
    if name in ("PROTO", "FRAME", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
        return
    if name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name in _VALUES:
        stack.append(value)
    elif name == "GLOBAL" and (value in _STORAGES or value in (_REBUILD, _ORDERED)):
        stack.append(_Global(value))
    elif name == "MARK":
        stack.append(_Mark)
    elif name == "TUPLE":
        start = len(stack) - 1 - stack[::-1].index(_Mark)
        stack[start:] = [tuple(stack[start + 1 :])]
    elif name in _TUPLES:
        stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
    elif name == "BINPERSID":
        pass  # the storage's own tuple stands for the storage
    elif name == "REDUCE":
        arguments = stack.pop()
        stack.append((stack.pop(), arguments))
    else:
        raise _refuse(f"its pickle holds {name} {value if value is not None else ''}".rstrip())
