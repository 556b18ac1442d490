"""Frames, the payload of a PUBLISH on a stream's topic: a header of 8 bytes, repeated units, new units.

    source u8 | flags u8 | sequence u16 | position u32 | repeated units | new units        (little-endian)

`source` changes with every sender that takes over a stream, `sequence` counts its frames, and `position` is the stream
position of the first new unit (a sample or a token), modulo 2^32. With an unbroken sequence, a jump in positions means
that the sender skipped that part; with a broken one, the units in between are lost. `flags`: bit 7 ends an utterance,
the other bits count the repeated units.
"""

import struct
from dataclasses import dataclass

from neucodec_streaming.errors import InputError

HEADER = struct.Struct("<BBHI")
SOURCES = 1 << 8
SEQUENCES = 1 << 16
POSITIONS = 1 << 32
MAX_REPEATED = 127
_LAST = 0x80


@dataclass(frozen=True)
class Frame:
    """One frame; the first `repeated` units of `payload` precede `position`, and `last` ends an utterance."""

    source: int
    sequence: int
    position: int
    payload: bytes
    repeated: int = 0
    last: bool = False

    def encode(self) -> bytes:
        """Encodes the frame; sequence and position wrap."""
        flags = self.repeated | (_LAST if self.last else 0)
        header = HEADER.pack(self.source, flags, self.sequence % SEQUENCES, self.position % POSITIONS)
        return header + self.payload


def parse_frame(data: bytes, unit_bytes: int) -> Frame:
    """Decodes a frame of a stream with units of `unit_bytes`. Raises InputError."""
    if len(data) < HEADER.size:
        raise InputError(f"frame of {len(data)} bytes: every frame starts with a header of {HEADER.size} bytes")
    source, flags, sequence, position = HEADER.unpack_from(data)
    payload = data[HEADER.size :]
    units, rest = divmod(len(payload), unit_bytes)
    repeated = flags & MAX_REPEATED
    if rest or repeated > units:
        raise InputError(
            f"frame with {len(payload)} bytes of payload and {repeated} repeated units: send whole units of"
            f" {unit_bytes} bytes, and no more repeated units than the payload has"
        )
    return Frame(source, sequence, position, payload, repeated, bool(flags & _LAST))


class FrameWriter:
    """Splits payload into frames numbered by one `source`. Each frame repeats the latest `redundancy` units.

    `position` is that of the next unit since the stream began, without wrapping.
    """

    def __init__(self, unit_bytes: int, source: int, redundancy: int = 0, position: int = 0) -> None:
        assert 0 <= redundancy <= MAX_REPEATED and 0 <= source < SOURCES, "the caller must check both"
        self.position = position
        self._unit_bytes = unit_bytes
        self._source = source
        self._most_bytes = redundancy * unit_bytes
        self._sequence = 0
        self._latest = b""

    def write(self, payload: bytes, last: bool = False) -> bytes:
        """Encodes the next frame, with whole units, or with none to end an utterance."""
        repeated = len(self._latest) // self._unit_bytes
        frame = Frame(self._source, self._sequence, self.position, self._latest + payload, repeated, last)
        self._sequence += 1
        self.position += len(payload) // self._unit_bytes
        if self._most_bytes:
            self._latest = (self._latest + payload)[-self._most_bytes :]
        return frame.encode()

    def skip_to(self, position: int) -> None:
        """Skips to `position`: the units in between do not exist."""
        if position != self.position:
            self.position = position
            self._latest = b""
