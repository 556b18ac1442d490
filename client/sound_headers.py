"""Corrects sizes in headers of audio files that contradict the data, for libsndfile.

A recorder that was killed, or that wrote into a pipe, leaves sizes of zero, unknown ones, or outdated ones. libsndfile
trusts them and reads too little. `open_corrected` compares the size of the audio chunk with the bytes after it: unless
the file ends or another chunk starts there, the audio continues to the end.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_ZEROS_BLOCK_BYTES = 65_536
UNKNOWN_BYTES = 0x7FFF_0000
"""Sizes from here on are placeholders that programs write into a pipe."""


@dataclass(frozen=True)
class Correction:
    """Bytes of a header to replace at `offset`, and the fault they had."""

    offset: int
    replacement: bytes
    note: str


@dataclass(frozen=True)
class _Layout:
    """Chunk layout of a container: id and size, byte order, padding to even lengths."""

    head: str
    audio: bytes
    padded: bool = True


_WAV = _Layout("<4sI", b"data")
_AIFF = _Layout(">4sI", b"SSND")
_SVX = _Layout(">4sI", b"BODY")
_CAF = _Layout(">4sq", b"data", padded=False)


def open_corrected(path: str | Path) -> tuple[BinaryIO, str | None]:
    """An audio file with a correct header, and a note if it was corrected. Raises OSError."""
    file: Any = open(path, "rb")  # noqa: SIM115 (the caller closes it)
    try:
        correction = find_correction(file)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    if correction is None:
        return file, None
    return io.BufferedReader(_Corrected(file, correction)), correction.note  # type: ignore[return-value]


def find_correction(file: BinaryIO) -> Correction | None:
    """The contradiction between header and data, if any."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    start = file.read(12)
    kind, form = start[:4], start[8:12]
    if kind == b"RIFF" and form == b"WAVE":
        return _in_chunks(file, size, 12, _WAV)
    if kind == b"RF64" and form == b"WAVE":
        return _in_rf64(file, size)
    if kind == b"FORM" and form in (b"AIFF", b"AIFC", b"8SVX", b"16SV"):
        return _in_chunks(file, size, 12, _SVX if b"SV" in form else _AIFF)
    if kind == b"caff":
        return _in_chunks(file, size, 8, _CAF)
    if kind in (b".snd", b"dns.") and len(start) == 12:
        order = ">" if kind == b".snd" else "<"
        begin, length = struct.unpack(order + "II", start[4:])
        if length != 0xFFFF_FFFF and size > begin and not _ends_well(file, size, begin + length, None):
            return _correction(8, order + "I", length, size - begin)
    return None


def _in_chunks(file: BinaryIO, size: int, position: int, layout: _Layout) -> Correction | None:
    for name, begin, length in _chunks(file, position, layout):
        if name == layout.audio:
            if size <= begin or (length >= 0 and _ends_well(file, size, begin + length, layout)):
                return None
            size_format = layout.head[0] + layout.head[3:]
            return _correction(begin - struct.calcsize(size_format), size_format, length, size - begin)
        if length < 0:
            return None
    return None


def _chunks(file: BinaryIO, position: int, layout: _Layout) -> Iterator[tuple[bytes, int, int]]:
    """Id, start and length of the chunks whose heads follow from `position` on."""
    head = struct.Struct(layout.head)
    while len(start := _at(file, position, head.size)) == head.size:
        name, length = head.unpack(start)
        begin = position + head.size
        yield name, begin, length
        position = begin + length + (length % 2 if layout.padded else 0)


def _in_rf64(file: BinaryIO, size: int) -> Correction | None:
    name, _, _, length = struct.unpack("<4sIQQ", _at(file, 12, 24).ljust(24, b"\0"))
    begin = next((begin for chunk, begin, _ in _chunks(file, 12, _WAV) if chunk == _WAV.audio), None)
    if name != b"ds64" or begin is None or size <= begin or _ends_well(file, size, begin + length, _WAV):
        return None
    return _correction(28, "<Q", length, size - begin)


def _correction(offset: int, size_format: str, length: int, true_length: int) -> Correction:
    most = 0xFFFF_FFFF if size_format[-1] == "I" else true_length
    known = 0 < length < UNKNOWN_BYTES or 0xFFFF_FFFF < length < 1 << 62
    said = f"{length} bytes of audio" if known else "no length"
    note = f"its header says {said}, and {true_length} bytes are there: read to the end"
    return Correction(offset, struct.pack(size_format, min(true_length, most)), note)


def _ends_well(file: BinaryIO, size: int, end: int, layout: _Layout | None) -> bool:
    """Whether after `end` the file has chunks up to its own end, zeros, or nothing."""
    if end > size:
        return False
    position = end
    if layout is not None:
        position += end % 2 if layout.padded else 0
        for name, begin, length in _chunks(file, position, layout):
            if not is_chunk_id(name) or not 0 <= length <= size - begin:
                break
            position = begin + length + (length % 2 if layout.padded else 0)
    return size - position < 8 or _is_zero(file, position)


def is_chunk_id(name: bytes) -> bool:
    """Whether bytes after the audio can be the id of a chunk: printable ASCII."""
    return all(32 <= byte < 127 for byte in name)


def _is_zero(file: BinaryIO, position: int) -> bool:
    file.seek(position)
    while block := file.read(_ZEROS_BLOCK_BYTES):
        if any(block):
            return False
    return True


def _at(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)


class _Corrected(io.RawIOBase):
    """A file with a few bytes of its header replaced."""

    def __init__(self, file: BinaryIO, correction: Correction) -> None:
        self._file, self._correction = file, correction

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        position, view = self._file.tell(), memoryview(buffer).cast("B")
        block = bytearray(self._file.read(len(view)))
        for place, byte in enumerate(self._correction.replacement, self._correction.offset - position):
            if 0 <= place < len(block):
                block[place] = byte
        view[: len(block)] = block
        return len(block)

    def close(self) -> None:
        self._file.close()
        super().close()
