"""A WebSocket hands its session typed messages and sends typed messages for it; JSON stays at this edge."""

import asyncio

import pytest
from websockets.frames import Frame, Opcode

from benchmarks.common.raw_connection import request
from neucodec_streaming.errors import MessageTooLarge, ProtocolError, StreamingError
from neucodec_streaming.protocol.messages import ClientMessage, Flush, Flushed, Mark
from neucodec_streaming.server.http.websocket import READ_BYTES, WebSocket
from neucodec_streaming.server.sessions.transport import Transport
from neucodec_streaming.server.settings.fields import Settings

HEAD = request("/v1/encode", "host")
MAX_BYTES = 1000


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
    def __init__(self) -> None:
        self.heard: list[bytes | ClientMessage | StreamingError] = []

    def opened(self, transport: Transport) -> None: ...
    def writable(self) -> None: ...
    def lost(self, is_clean: bool) -> None: ...

    def received(self, message: bytes | ClientMessage | StreamingError) -> None:
        self.heard.append(message)


async def test_messages_arrive_in_order_and_invalid_ones_as_errors() -> None:
    ear, transport = Ear(), FakeTransport()
    settings = Settings(max_message_bytes=MAX_BYTES, max_messages_per_s=1e9)
    socket = WebSocket(lambda request, peer, is_upgrade: ear, settings, set(), memoryview(bytearray(READ_BYTES)))
    socket.connection_made(transport)
    sent: list[tuple[Opcode, bytes]] = [
        (Opcode.BINARY, b"ab"),
        (Opcode.TEXT, b'{"type":"flush"}'),
        (Opcode.TEXT, b'{"type":"mark","id":7}'),
        (Opcode.TEXT, b"hello"),
        (Opcode.BINARY, bytes(MAX_BYTES + 1)),
    ]
    data = HEAD + b"".join(Frame(*frame).serialize(mask=True) for frame in sent)
    socket.get_buffer(-1)[: len(data)] = data
    socket.buffer_updated(len(data))
    assert ear.heard[:3] == [b"ab", Flush(), Mark(7)]
    assert [type(error) for error in ear.heard[3:]] == [ProtocolError, MessageTooLarge]
    transport.sent = b""
    socket.send(Flushed())
    assert transport.sent == Frame(Opcode.TEXT, b'{"type":"flushed"}').serialize(mask=False)
    socket.connection_lost(None)


@pytest.mark.parametrize("length", [0, 125, 126, 65_535, 65_536])
async def test_outgoing_frames_equal_those_of_websockets(length: int) -> None:
    transport, message = FakeTransport(), bytes(length)
    socket = WebSocket(lambda request, peer, is_upgrade: Ear(), Settings(), set(), memoryview(bytearray(READ_BYTES)))
    socket.connection_made(transport)
    socket.send(message)
    assert transport.sent == Frame(Opcode.BINARY, message).serialize(mask=False)
    socket.connection_lost(None)
