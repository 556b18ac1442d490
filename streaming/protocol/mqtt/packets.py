"""What a PUBLISH on a stream's topic carries: a header of 8 bytes, units repeated from earlier frames, new ones.

    source u8 | flags u8 | sequence u16 | position u32 | repeated units | new units        (little-endian)

`source` is another number for every sender that takes up a stream, `sequence` counts its frames, `position` is that of
the first new unit (a sample or a token) on the stream's line of time, modulo 2^32. Frames whose sequence is unbroken
may leave out a stretch of that line, and nothing is lost then; where the sequence is broken, all between the positions
is. `flags`: bit 7 says that an utterance ends with this frame, the others count the repeated units.
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
    """One frame; the first `repeated` units of `payload` lie before `position`, `last` ends an utterance."""

    source: int
    sequence: int
    position: int
    payload: bytes
    repeated: int = 0
    last: bool = False

    def encode(self) -> bytes:
        """The bytes of a PUBLISH; sequence and position wrap."""
        flags = self.repeated | (_LAST if self.last else 0)
        header = HEADER.pack(self.source, flags, self.sequence % SEQUENCES, self.position % POSITIONS)
        return header + self.payload


def parse_frame(data: bytes, unit_bytes: int) -> Frame:
    """The frame in a PUBLISH of a stream whose units have so many bytes. Raises InputError."""
    if len(data) < HEADER.size:
        raise InputError(f"frame of {len(data)} bytes: a frame begins with a header of {HEADER.size} bytes")
    source, flags, sequence, position = HEADER.unpack_from(data)
    payload = data[HEADER.size :]
    units, rest = divmod(len(payload), unit_bytes)
    repeated = flags & MAX_REPEATED
    if rest or repeated > units:
        raise InputError(
            f"frame with {len(payload)} bytes of payload, {repeated} units of it repeated: send whole units of"
            f" {unit_bytes} bytes, and no more repeated ones than there are"
        )
    return Frame(source, sequence, position, payload, repeated, bool(flags & _LAST))


class FrameWriter:
    """Payload in, frames out, numbered by one `source`. `redundancy`: so many of the latest units are repeated in each.

    `position` is that of the next unit, from the stream's beginning and without wrapping.
    """

    def __init__(self, unit_bytes: int, source: int, redundancy: int = 0, position: int = 0) -> None:
        assert 0 <= redundancy <= MAX_REPEATED and 0 <= source < SOURCES, "checked by whoever asks"
        self.position = position
        self._unit_bytes = unit_bytes
        self._source = source
        self._most_bytes = redundancy * unit_bytes
        self._sequence = 0
        self._latest = b""

    def write(self, payload: bytes, last: bool = False) -> bytes:
        """The next frame, with whole units or, to end an utterance, none."""
        repeated = len(self._latest) // self._unit_bytes
        frame = Frame(self._source, self._sequence, self.position, self._latest + payload, repeated, last)
        self._sequence += 1
        self.position += len(payload) // self._unit_bytes
        if self._most_bytes:
            self._latest = (self._latest + payload)[-self._most_bytes :]
        return frame.encode()

    def skip_to(self, position: int) -> None:
        """The next unit lies there: what is between never was."""
        if position != self.position:
            self.position = position
            self._latest = b""
