"""One TCP connection: an HTTP request, and after the upgrade a WebSocket. The protocol is websockets' own, without I/O.

No task runs behind a connection: bytes are parsed as they come, and whoever owns it is called. No connection takes the
event loop from the others, whatever it sends: a read may bring thousands of frames, so they are parsed no faster than a
set pace; the rest waits, and with it the client.

The one thing that is not left to websockets is a binary message in one frame, which nearly all messages are: it is cut
out and unmasked here, or gets its header here, for speed (`benchmarks.wire`).
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import cast

from websockets.frames import Frame, Opcode, apply_mask
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from neucodec_streaming.protocol.messages import SUBPROTOCOL
from neucodec_streaming.server.http.responses import plain
from neucodec_streaming.server.sessions.transport import SessionHandler
from neucodec_streaming.server.settings.fields import Settings

SERVER_NAME = "neucodec-streaming"
READ_BYTES = 16_384
"""The most that is read at once: a peer that is gone is noticed behind it, and it may be 2,700 frames of nothing."""
BURST_S = 0.2
"""A connection that has been quiet may send what the pace allows in so long at once."""
PAUSE_S = 0.02
"""Who has used that up waits for so long at least, and then has what came together in it: to look up costs time too."""
MAX_UNSENT_BYTES = 1 << 18
"""With more than that to be sent (to a flood of pings, say), nothing is read."""
_HEAD_END = b"\r\n\r\n"
_BINARY = 0x80 | Opcode.BINARY
_MASKED = 0x80
_MASK_BYTES = 4
_LONGER = 126
"""In place of a frame's length: two more bytes have it; 127: eight."""

_log = logging.getLogger(__name__)
_quiet = logging.getLogger(f"{__name__}.protocol")
_quiet.setLevel(logging.CRITICAL)  # it tells of URLs, and keys may be in them


RequestHandler = Callable[[Request, str, bool], Response | SessionHandler | None]
"""Request, address of the peer, whether it asks for a WebSocket -> an answer, or who gets the WebSocket.

None, where it does not ask: what RFC 6455 has for a bad handshake.
"""


class WebSocket(asyncio.BufferedProtocol):
    """A connection that was accepted; `sockets` holds it while it lasts."""

    def __init__(self, handler: RequestHandler, settings: Settings, sockets: "set[WebSocket]") -> None:
        self._handler = handler
        self._settings = settings
        self._sockets = sockets
        self._loop = asyncio.get_running_loop()
        self._max_bytes = settings.max_message_bytes * 2  # above the limit that has a message of its own
        self._protocol = ServerProtocol(select_subprotocol=_subprotocol, max_size=self._max_bytes, logger=_quiet)
        self._listener: SessionHandler | None = None
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle  # for the request, then for pings, then for the end
        self._stalled: asyncio.TimerHandle | None = None
        self._next: asyncio.Handle | None = None
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._unread = bytearray()
        self._at = 0  # of it, what comes next; 0 but within `_parse`
        self._payload_at = 0  # of the message that `_unit` has found; 0: what it has found is left to the protocol
        self._is_connecting = True
        self._is_lawless = False
        self._is_reading = True
        self._parts: list[bytes] = []  # of a message in fragments
        self._is_text = False
        self._has_heard = True
        self._is_ending = False
        self._burst = max(1.0, settings.max_messages_per_s * BURST_S)
        self._credit = self._burst
        self._credited_s = self._loop.time()
        self.is_writable = True
        self.is_held = False
        """Whether nothing is read, by `hold`."""
        self.gone: asyncio.Future[None] = self._loop.create_future()
        """Done when the connection is."""

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._protocol.state is State.OPEN

    def send(self, message: bytes | str) -> None:
        """Sends a message; look at `is_open` and `is_writable` first."""
        if isinstance(message, bytes):
            self._transport.writelines((_binary_head(len(message)), message))
        else:
            self._protocol.send_text(message.encode())
            self._write()

    def close(self, code: int, reason: str = "") -> None:
        """Begins the closing handshake; a peer that does not answer is cut off."""
        if self.is_open:
            self._protocol.send_close(code, reason)
            self._write()
            self._end_soon()

    def abort(self) -> None:
        """Cuts the connection."""
        self._transport.abort()

    def drop(self) -> None:
        """Cuts the connection and calls its listener no more."""
        self._listener = None
        self.abort()

    def hold(self) -> None:
        """Reads no more until `release`: the client is slowed down."""
        self.is_held = True

    def release(self) -> None:
        """Reads on."""
        if self.is_held:
            self.is_held = False
            self._parse_soon()

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._sockets.add(self)
        self._timer = self._loop.call_later(self._settings.open_timeout_s, self.abort)

    def get_buffer(self, size_hint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, size: int) -> None:
        self._has_heard = True
        self._unread += self._buffer[:size]
        if not self._parse():
            self._credit -= 1  # crumbs of a message are as much work as messages

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._write()

    def pause_writing(self) -> None:
        self.is_writable = False
        self._stalled = self._loop.call_later(self._settings.send_timeout_s, self._give_up_sending)

    def resume_writing(self) -> None:
        self.is_writable = True
        if self._stalled is not None:
            self._stalled.cancel()
        self._parse_soon()
        if self._listener is not None:
            self._listener.writable()

    def connection_lost(self, error: Exception | None) -> None:
        self._sockets.discard(self)
        self._unread.clear()
        for handle in (self._timer, self._stalled, self._next):
            if handle is not None:
                handle.cancel()
        self.gone.set_result(None)
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.lost(self._protocol.close_rcvd is not None)

    # Reading

    def _parse_soon(self) -> None:
        """Not at once: others have their turn first."""
        if self._next is None:
            self._next = self._loop.call_soon(self._parse)

    def _parse(self) -> bool:
        """Parses what is unread as far as may be now, and says whether there was something; the transport reads on when
        nothing whole is left."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        unread, wait_s = self._unread, 0.0
        is_full = self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES
        while (size := self._unit()) and not is_full and not self.is_held and not (wait_s := self._wait_s()):
            self._credit -= 1
            start, self._at = self._at, self._at + size
            payload_at = self._payload_at
            if payload_at and not self._parts and not self._is_ending:
                mask = unread[payload_at - _MASK_BYTES : payload_at]
                self._take_message(apply_mask(unread[payload_at : self._at], mask))
            else:
                self._take(unread[start : self._at])
        has_parsed = self._at > 0
        del unread[: self._at]
        self._at = 0
        if wait_s:
            if self._transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.abort()  # the peer is gone: what it has sent may be minutes of this pace
            else:
                self._next = self._loop.call_later(wait_s, self._parse)
        may_read = not (size or wait_s or is_full or self.is_held)
        if may_read is not self._is_reading and not self._transport.is_closing():
            self._is_reading = may_read
            (self._transport.resume_reading if may_read else self._transport.pause_reading)()
        return has_parsed

    def _wait_s(self) -> float:
        """How long until the connection may have something parsed; 0: now."""
        if self._credit < 1:
            now_s, per_s = self._loop.time(), self._settings.max_messages_per_s
            self._credit = min(self._burst, self._credit + (now_s - self._credited_s) * per_s)
            self._credited_s = now_s
        return 0.0 if self._credit >= 1 else max(PAUSE_S, (1 - self._credit) / self._settings.max_messages_per_s)

    def _unit(self) -> int:
        """How many bytes come next that belong together: what there is of a request, or a frame; 0: not all is there.

        What no frame can be, and all that follows it, is left to the protocol.
        """
        unread, start, self._payload_at = self._unread, self._at, 0
        left = len(unread) - start
        if left < 2 or self._is_lawless:
            return left if self._is_lawless else 0
        if self._is_connecting:
            end = unread.find(_HEAD_END, start)
            return max(0, left + 1 - len(_HEAD_END)) if end < 0 else end + len(_HEAD_END) - start
        second = unread[start + 1]
        length, head = second & ~_MASKED, 2  # bytes of the header, by and by
        if length >= _LONGER:
            head = 4 if length == _LONGER else 10
            if left < head:
                return 0
            length = int.from_bytes(unread[start + 2 : start + head])
        if not second & _MASKED or length > self._max_bytes:
            self._is_lawless = True
            return left
        head += _MASK_BYTES
        if unread[start] == _BINARY:
            self._payload_at = start + head
        return head + length if head + length <= left else 0

    def _take(self, unit: bytearray) -> None:
        protocol = self._protocol
        protocol.receive_data(unit)
        events = protocol.events_received()
        self._write()  # pongs, the answer to a close, what to say to a frame that cannot be
        for event in events:
            if isinstance(event, Request):
                self._answer(event)
            elif isinstance(event, Frame):
                self._take_frame(event)
        if protocol.close_expected():
            self._end_soon()

    def _answer(self, request: Request) -> None:
        """Lets the request in, or answers it."""
        response = self._protocol.accept(request)
        peer = self._transport.get_extra_info("peername")
        try:
            outcome = self._handler(request, peer[0] if peer else "", response.status_code == 101)
        except Exception:
            _log.exception("a request failed")
            outcome = plain(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error\n", "text/plain; charset=utf-8")
        if isinstance(outcome, Response):
            response = outcome
        response.headers["Server"] = SERVER_NAME
        self._protocol.send_response(response)
        self._is_connecting = self._protocol.state is State.CONNECTING
        self._write()
        if not self.is_open:
            self._end_soon()
        elif outcome is not None and not isinstance(outcome, Response):
            self._listener = outcome
            self._wait_to_ping()
            outcome.opened(self)

    def _take_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.TEXT or frame.opcode is Opcode.BINARY:
            self._is_text = frame.opcode is Opcode.TEXT
        elif frame.opcode is not Opcode.CONT:
            return  # the protocol has dealt with it
        self._parts.append(bytes(frame.data))
        if not frame.fin:
            return
        data, self._parts = b"".join(self._parts), []
        try:
            self._take_message(data.decode() if self._is_text else data)
        except UnicodeDecodeError:
            self._fail(1007, "text that is no UTF-8")

    def _take_message(self, message: bytes | str) -> None:
        if self._listener is None:
            return
        try:
            self._listener.received(message)
        except Exception:
            _log.exception("a message failed")
            self._fail(1011, "internal")

    def _fail(self, code: int, reason: str) -> None:
        self._protocol.fail(code, reason)
        self._write()
        self._end_soon()

    # Writing, pings, and the end

    def _write(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            elif not self._transport.can_write_eof():
                self._transport.close()  # TLS has no half of a connection
            elif not self._transport.is_closing():
                try:
                    self._transport.write_eof()
                except (OSError, RuntimeError):  # the peer is gone already
                    self._transport.abort()

    def _give_up_sending(self) -> None:
        _log.warning("a client takes nothing for %.0f s: disconnected", self._settings.send_timeout_s)
        self.abort()

    def _wait_to_ping(self) -> None:
        self._timer.cancel()
        self._timer = self._loop.call_later(self._settings.ping_interval_s, self._ping)

    def _ping(self) -> None:
        """Asks for a sign of life, so that a connection that is half open ends."""
        if self.is_open:
            self._has_heard = False
            self._protocol.send_ping(b"")
            self._write()
            self._timer = self._loop.call_later(self._settings.ping_timeout_s, self._judge)

    def _judge(self) -> None:
        """Not while nothing is read, since the answers queue too."""
        if self._is_ending:
            return
        if self._has_heard or not self._is_reading:
            self._wait_to_ping()
        else:
            _log.warning("a client does not answer pings: disconnected")
            self.abort()

    def _end_soon(self) -> None:
        """The peer has its time to close, counted once; then the connection is cut."""
        if not self._is_ending:
            self._is_ending = True
            self._timer.cancel()
            self._timer = self._loop.call_later(self._settings.close_timeout_s, self.abort)


def _binary_head(length: int) -> bytes:
    """What goes before so many bytes of a message in one frame."""
    if length < _LONGER:
        return bytes((_BINARY, length))
    size, mark = (2, _LONGER) if length < 1 << 16 else (8, _LONGER + 1)
    return bytes((_BINARY, mark)) + length.to_bytes(size)


def _subprotocol(protocol: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Ours when it is offered; none is fine."""
    return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered else None
