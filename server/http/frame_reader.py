"""Cuts a client's bytes into messages, like websockets' ServerProtocol but faster for the usual ones.

A binary message in one masked frame, as nearly all are, is cut out and unmasked here. The request, every other frame
and invalid frames are left to the protocol (`benchmarks.wire` measures the gain). For any partition of the bytes,
messages, state and answers equal the protocol's own, which tests check.
"""

from collections.abc import Sequence
from struct import Struct

from websockets.frames import Frame, Opcode, apply_mask
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

HEAD_END = b"\r\n\r\n"
BINARY = 0x80 | Opcode.BINARY
"""First byte of a binary message in one frame."""
OPCODE = 0x0F
OPCODES = frozenset(map(int, Opcode))
MASKED = 0x80
MASK_BYTES = 4
LENGTH_16_BITS, LENGTH_64_BITS = 126, 127
"""RFC 6455, section 5.2: in place of a length; the length follows in two or eight bytes."""
BITS_16, BITS_64 = Struct(">H"), Struct(">Q")

_OPEN = State.OPEN
NEVER_ENDING = 1 << 63
"""Length of an invalid frame: all following bytes belong to it."""


class FrameReader:
    """Reads for `protocol`; frames longer than `max_bytes` are left to it, which refuses them."""

    def __init__(self, protocol: ServerProtocol, max_bytes: int) -> None:
        self._protocol = protocol
        self._max_bytes = max_bytes
        self._unread = bytearray()
        self._at = 0  # start of the next unit in `_unread`
        self._end = 0  # of the unit that `find` has found
        self._payload_at = 0
        self.found_payload = False
        """Whether the unit that `find` has found is a non-empty binary message, for `take_payload`."""
        self._is_connecting = True
        self._owed = 0  # remaining bytes of the frame that the protocol is reading
        self._parts: list[bytes] = []  # of a fragmented message
        self._opcode = Opcode.BINARY

    def feed(self, data: bytes | memoryview) -> None:
        """Appends bytes of the client."""
        if self._at:
            del self._unread[: self._at]
            self._at = 0
        self._unread += data

    def only_payload(self, data: memoryview) -> bytes | None:
        """The payload of `data` if it is exactly one message that `take_payload` would return, as a read of a live
        session usually is; else None, and `data` has to be fed.
        """
        size, payload_at = len(data), 2 + MASK_BYTES
        if size <= payload_at or data[0] != BINARY or self._is_connecting:
            return None
        length = data[1] - MASKED
        if length == LENGTH_16_BITS:
            (length,) = BITS_16.unpack_from(data, 2)
            payload_at += BITS_16.size
        elif length == LENGTH_64_BITS:
            return None
        is_whole = 0 < length == size - payload_at <= self._max_bytes
        is_within = self._owed or self._parts or len(self._unread) > self._at  # another unit
        if not is_whole or is_within or self._protocol.state is not _OPEN:
            return None
        return apply_mask(data[payload_at:], bytes(data[payload_at - MASK_BYTES : payload_at]))

    def clear(self) -> None:
        """Discards unread bytes."""
        self._unread.clear()
        self._at = 0

    def find(self) -> bool:
        """Whether a unit is available: a binary message, or a part of a request or another frame."""
        unread, start = self._unread, self._at
        self.found_payload = False
        left = len(unread) - start
        if self._owed and left:
            self._end = start + min(self._owed, left)
            return True
        if left < 2:
            return False
        if self._is_connecting:
            self._is_connecting = self._protocol.state is State.CONNECTING
            if self._is_connecting:
                end = unread.find(HEAD_END, start)
                self._end = end + len(HEAD_END) if end >= 0 else len(unread) + 1 - len(HEAD_END)
                return self._end > start
        first, second = unread[start], unread[start + 1]
        length, payload_at = second & ~MASKED, start + 2 + MASK_BYTES
        is_lawful = second & MASKED and (first == BINARY or first & OPCODE in OPCODES)
        if is_lawful and length >= LENGTH_16_BITS:
            field = BITS_16 if length == LENGTH_16_BITS else BITS_64
            if left < 2 + field.size:
                return False
            (length,) = field.unpack_from(unread, start + 2)
            payload_at += field.size
        self._end = end = payload_at + length
        if not is_lawful or length > self._max_bytes:
            self._owed = NEVER_ENDING
        elif first != BINARY or self._parts or not length or self._protocol.state is not _OPEN:
            self._owed = end - start
        else:
            self._payload_at = payload_at
            self.found_payload = end - start <= left
            return self.found_payload
        self._end = start + min(self._owed, left)
        return True

    def take_payload(self) -> bytes:
        """Takes the binary message that `find` has found."""
        at = self._payload_at
        self._at = end = self._end
        return apply_mask(self._unread[at:end], self._unread[at - MASK_BYTES : at])

    def take(self) -> Sequence[bytes | str | Request]:
        """Takes another unit that `find` has found; returns completed messages, or the request."""
        start, self._at = self._at, self._end
        self._owed = max(0, self._owed - (self._end - start))
        self._protocol.receive_data(self._unread[start : self._end])
        messages: list[bytes | str | Request] = []
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                messages.append(event)
            elif isinstance(event, Frame):
                self._take_frame(event, messages)
        return messages

    def _take_frame(self, frame: Frame, messages: list[bytes | str | Request]) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._opcode = frame.opcode
        elif frame.opcode is not Opcode.CONT:
            return  # the protocol has seen it
        self._parts.append(bytes(frame.data))
        if not frame.fin:
            return
        data, self._parts = b"".join(self._parts), []
        try:
            messages.append(data.decode() if self._opcode is Opcode.TEXT else data)
        except UnicodeDecodeError:
            self._protocol.fail(1007, "text that is not UTF-8")


def binary_header(length: int) -> bytes:
    """The header of a server's frame with a binary message of that length."""
    if length < LENGTH_16_BITS:
        return bytes((BINARY, length))
    size, code = (2, LENGTH_16_BITS) if length < 1 << 16 else (8, LENGTH_64_BITS)
    return bytes((BINARY, code)) + length.to_bytes(size)
