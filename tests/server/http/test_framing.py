"""However frames are sent and cut: the listener hears what websockets' own protocol makes of them."""

import asyncio
import random
import struct

import pytest
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from benchmarks.common.raw_connection import request
from neucodec_streaming.server.http.websocket import WebSocket
from neucodec_streaming.server.settings.fields import Settings

HEAD = request("/v1/encode", "host")
MAX_BYTES = 1000
"""The longest message of the settings; twice that is the longest that is read."""
LENGTHS = (0, 1, 125, 126, 127, 700, 2 * MAX_BYTES)


class FakeTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.gone = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def abort(self) -> None:
        self.gone = True

    def is_closing(self) -> bool:
        return self.gone

    def pause_reading(self) -> None:
        raise AssertionError("all is within the pace")

    resume_reading = pause_reading


class Ear:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.heard: list[bytes | str] = []

    def opened(self, socket: WebSocket) -> None: ...
    def writable(self) -> None: ...
    def lost(self, is_clean: bool) -> None: ...

    def received(self, message: bytes | str) -> None:
        self.heard.append(message)


def frames(rng: random.Random) -> list[bytes]:
    """Of a client that is mostly right: messages whole and in pieces, controls between them, and perhaps a mistake."""
    found = []
    for _ in range(rng.randint(1, 12)):
        opcode = rng.choice((Opcode.BINARY, Opcode.BINARY, Opcode.BINARY, Opcode.TEXT))
        data = bytes(rng.choices(b"abc", k=rng.choice(LENGTHS)))
        parts = [data]
        if rng.random() < 0.3:
            cuts = sorted(rng.choices(range(len(data) + 1), k=rng.randint(1, 3)))
            parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        for place, part in enumerate(parts):
            frame = Frame(opcode if place == 0 else Opcode.CONT, part, fin=place == len(parts) - 1)
            found.append(frame.serialize(mask=True))
            if rng.random() < 0.2:
                found.append(Frame(Opcode.PING, b"here?").serialize(mask=True))
    if rng.random() < 0.5:
        found.insert(rng.randint(0, len(found)), rng.choice(MISTAKES))
    return found


MISTAKES = (
    Frame(Opcode.BINARY, bytes(2 * MAX_BYTES + 1)).serialize(mask=True),
    Frame(Opcode.BINARY, b"ab").serialize(mask=False),
    Frame(Opcode.CLOSE, Close(1000, "").serialize()).serialize(mask=True),
    b"\xc2\x82abcdef",  # a reserved bit
    b"\x83\x82abcdef",  # an opcode that there is not
    b"\x89\xfe\x00\xc8" + bytes(204),  # a long ping
    b"\x82\xff" + struct.pack(">Q", 1 << 63) + bytes(4),
    b"\x82\xfe\x00\x05abcdhello",  # a length in more bytes than it needs
    Frame(Opcode.CONT, b"of what?").serialize(mask=True),
)


def expected(stream: bytes) -> tuple[list[bytes | str], State]:
    """By websockets alone: the messages, and the state that the connection is left in."""
    protocol = ServerProtocol(max_size=2 * MAX_BYTES)
    messages: list[bytes | str] = []
    parts: list[bytes] = []
    is_text = False
    protocol.receive_data(HEAD)
    protocol.send_response(protocol.accept(next(one for one in protocol.events_received() if isinstance(one, Request))))
    protocol.receive_data(stream)
    for frame in protocol.events_received():
        assert isinstance(frame, Frame)
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            is_text = frame.opcode is Opcode.TEXT
        elif frame.opcode is not Opcode.CONT:
            continue
        parts.append(bytes(frame.data))
        if frame.fin:
            messages.append(b"".join(parts).decode() if is_text else b"".join(parts))
            parts = []
    return messages, protocol.state


@pytest.mark.parametrize("seed", range(300))
async def test_what_is_heard_is_what_the_protocol_makes_of_it(seed: int) -> None:
    rng, ear, transport = random.Random(seed), Ear(), FakeTransport()
    settings = Settings(max_message_bytes=MAX_BYTES, max_messages_per_s=1e9)
    socket = WebSocket(lambda request, peer, is_upgrade: ear, settings, set())
    socket.connection_made(transport)
    stream = b"".join(frames(rng))
    most = rng.choice((1, 3, 50, 4000))
    whole, start = HEAD + stream, 0
    while start < len(whole):
        size = min(rng.randint(1, most), len(whole) - start)
        socket.get_buffer(-1)[:size] = whole[start : start + size]
        socket.buffer_updated(size)
        start += size
    messages, state = expected(stream)
    assert ear.heard == messages
    assert socket._protocol.state is state
    socket.connection_lost(None)


@pytest.mark.parametrize("length", [0, 125, 126, 65_535, 65_536])
async def test_a_message_is_sent_in_the_frame_that_the_protocol_makes_of_it(length: int) -> None:
    transport, message = FakeTransport(), bytes(length)
    socket = WebSocket(lambda request, peer, is_upgrade: Ear(), Settings(), set())
    socket.connection_made(transport)
    socket.send(message)
    assert transport.sent == Frame(Opcode.BINARY, message).serialize(mask=False)
    socket.connection_lost(None)
