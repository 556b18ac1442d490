"""One TCP connection: an HTTP request, then a WebSocket. The protocol is websockets' own, without I/O.

No task runs for a connection: bytes are parsed as they arrive, and the owner is called. No connection can monopolise
the event loop: a read may contain thousands of frames, so others get a turn after some of them, and messages other than
payload (which the session bounds) are parsed at a limited rate; the rest waits, and so does the client. Text messages
are encoded and decoded here (transport.py).
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, cast

from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from neucodec_streaming.protocol.messages import SUBPROTOCOL, ServerMessage, encode_message
from neucodec_streaming.server.http.frame_reader import FrameReader, binary_header
from neucodec_streaming.server.http.responses import SERVER_NAME, plain
from neucodec_streaming.server.lifecycle import moved
from neucodec_streaming.server.sessions.pace import MessagePace
from neucodec_streaming.server.sessions.transport import SessionHandler, hand_on
from neucodec_streaming.server.settings.fields import Settings

READ_BYTES = 16_384
"""Limit of a read: a disconnected peer is only noticed after it, and it may contain 2,700 empty frames."""
TURN_FRAMES = 64
"""Frames parsed before other connections get a turn: about 0.2 ms, and an answer takes several turns."""
CRUMB_BYTES = 1024
"""A read of fewer bytes that completes nothing counts as a message, since it is as much work."""
MAX_UNSENT_BYTES = 1 << 18
"""With more unsent bytes (after a flood of pings, for example), nothing is read."""
OTHER_METHODS = frozenset({b"P", b"D", b"O", b"T", b"C"})
"""First bytes of methods other than GET and HEAD: POST, PUT, PATCH, DELETE, OPTIONS, TRACE, CONNECT."""
_OPEN = State.OPEN
_log = logging.getLogger(__name__)
_quiet = logging.getLogger(f"{__name__}.protocol")
_quiet.setLevel(logging.CRITICAL)  # it logs URLs, which may contain keys


RequestHandler = Callable[[Request, str, bool], Response | SessionHandler | None]
"""Request, peer address, whether it asks for a WebSocket -> an answer, or the handler of the WebSocket.

None if it does not ask for one: the answer is RFC 6455's for a bad handshake.
"""


class ConnectionPhase(Enum):
    """State of a connection: before its request is answered, a WebSocket, closing, or closed."""

    REQUEST = auto()
    OPEN = auto()
    ENDING = auto()
    GONE = auto()


_PHASES = {
    ConnectionPhase.REQUEST: frozenset({ConnectionPhase.OPEN, ConnectionPhase.ENDING, ConnectionPhase.GONE}),
    ConnectionPhase.OPEN: frozenset({ConnectionPhase.ENDING, ConnectionPhase.GONE}),
    ConnectionPhase.ENDING: frozenset({ConnectionPhase.GONE}),
    ConnectionPhase.GONE: frozenset(),
}


class WebSocket(asyncio.BufferedProtocol):
    """An accepted connection; `sockets` contains it while it is open. `buffer`, of READ_BYTES, is shared by all
    connections of an event loop, which reads one after another.

    `other` creates the protocol of connections whose request has a method other than GET or HEAD.
    """

    def __init__(
        self,
        handler: RequestHandler,
        settings: Settings,
        sockets: set[Any],
        buffer: memoryview,
        other: Callable[[], asyncio.Protocol] | None = None,
    ) -> None:
        self._handler = handler
        self._other = other
        self._settings = settings
        self._sockets = sockets
        self._loop = asyncio.get_running_loop()
        max_bytes = settings.max_message_bytes * 2  # above the limit that has its own message
        self._protocol = ServerProtocol(select_subprotocol=_subprotocol, max_size=max_bytes, logger=_quiet)
        self._reader = FrameReader(self._protocol, max_bytes)
        self._phase = ConnectionPhase.REQUEST
        self._listener: SessionHandler | None = None
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle  # for the request, then for pings, then for the close
        self._stalled: asyncio.TimerHandle | None = None
        self._next: asyncio.Handle | None = None
        self._buffer = buffer
        self._is_reading = True
        self._has_heard = True
        self._has_read = False
        self._pace = MessagePace(settings.max_messages_per_s, self._loop.time)
        self.is_writable = True
        self.is_held = False
        """Whether reading is paused by `hold`."""
        self.gone: asyncio.Future[None] = self._loop.create_future()
        """Done when the connection is closed."""

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._protocol.state is _OPEN

    def send(self, message: bytes | ServerMessage) -> None:
        """Sends a message; check `is_open` and `is_writable` first."""
        if isinstance(message, bytes):
            self._transport.writelines((binary_header(len(message)), message))
        else:
            self._protocol.send_text(encode_message(message).encode())
            self._write()

    def close(self, code: int, reason: str = "") -> None:
        """Starts the closing handshake; a peer that does not answer is cut off."""
        if self.is_open:
            self._protocol.send_close(code, reason)
            self._write()
            self._end_soon()

    def abort(self) -> None:
        """Cuts the connection."""
        self._transport.abort()

    def drop(self) -> None:
        """Cuts the connection and stops calling its listener."""
        self._listener = None
        self.abort()

    def hold(self) -> None:
        """Stops reading until `release`, which slows the client down."""
        self.is_held = True

    def release(self) -> None:
        """Resumes reading."""
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
        if self._other is not None and not self._has_read and bytes(self._buffer[:1]) in OTHER_METHODS:
            self._hand_over(self._other(), bytes(self._buffer[:size]))
            return
        self._has_heard = self._has_read = True
        data = self._buffer[:size]
        payload = None if self.is_held else self._reader.only_payload(data)
        if payload is not None:
            self._take_message(payload)
            if self.is_held:
                self._parse()  # pauses reading
            return
        self._reader.feed(data)
        if not self._parse() and size < CRUMB_BYTES:
            self._pace.spend()

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
        self._reader.clear()
        self._phase = moved(_PHASES, self._phase, ConnectionPhase.GONE)
        for handle in (self._timer, self._stalled, self._next):
            if handle is not None:
                handle.cancel()
        self.gone.set_result(None)
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.lost(self._protocol.close_rcvd is not None)

    # Reading

    def _hand_over(self, other: asyncio.Protocol, data: bytes) -> None:
        """Hands the connection and its unread bytes to another protocol."""
        self.connection_lost(None)
        self._transport.set_protocol(other)
        other.connection_made(self._transport)
        other.data_received(data)

    def _parse_soon(self) -> None:
        """Continues later: other connections get a turn first."""
        if self._next is None:
            self._next = self._loop.call_soon(self._parse)

    def _parse(self) -> bool:
        """Parses unread bytes as far as allowed now; returns whether there were any. The transport resumes reading once
        no complete unit is left.
        """
        if self._next is not None:
            self._next.cancel()
            self._next = None
        reader, wait_s, parsed = self._reader, 0.0, 0
        is_full = self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES
        while (found := reader.find()) and not is_full and not self.is_held and parsed < TURN_FRAMES:
            if reader.found_payload:
                self._take_message(reader.take_payload())
            elif wait_s := self._pace.wait_s():
                break
            else:
                self._pace.spend()
                self._take(reader.take())
            parsed += 1
        if wait_s:
            if self._transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.abort()  # the peer is gone: at this rate its bytes may take minutes
            else:
                self._next = self._loop.call_later(wait_s, self._parse)
        elif parsed == TURN_FRAMES:
            self._parse_soon()
        may_read = not (found or wait_s or is_full or self.is_held)
        if may_read is not self._is_reading and not self._transport.is_closing():
            self._is_reading = may_read
            (self._transport.resume_reading if may_read else self._transport.pause_reading)()
        return parsed > 0

    def _take(self, messages: Sequence[bytes | str | Request]) -> None:
        for message in messages:
            if isinstance(message, Request):
                self._answer(message)
            else:
                self._take_message(message)
        self._write()  # pongs, the answer to a close, the refusal of an invalid frame
        if self._protocol.close_expected():
            self._end_soon()

    def _answer(self, request: Request) -> None:
        """Accepts the request, or answers it."""
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
        self._write()
        if not self.is_open:
            self._end_soon()
            return
        self._phase = moved(_PHASES, self._phase, ConnectionPhase.OPEN)
        if outcome is not None and not isinstance(outcome, Response):
            self._listener = outcome
            self._wait_to_ping()
            outcome.opened(self)

    def _take_message(self, data: bytes | str) -> None:
        if self._listener is None:
            return
        try:
            hand_on(data, self._listener, self._settings.max_message_bytes)
        except Exception:
            _log.exception("a message failed")
            self._protocol.fail(1011, "internal")
            self._write()
            self._end_soon()

    # Writing, pings, and the end

    def _write(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            elif not self._transport.can_write_eof():
                self._transport.close()  # TLS has no half-closed connections
            elif not self._transport.is_closing():
                try:
                    self._transport.write_eof()
                except (OSError, RuntimeError):  # the peer is already gone
                    self._transport.abort()

    def _give_up_sending(self) -> None:
        _log.warning("a client has read nothing for %.0f s: disconnecting it", self._settings.send_timeout_s)
        self.abort()

    def _wait_to_ping(self) -> None:
        self._timer.cancel()
        self._timer = self._loop.call_later(self._settings.ping_interval_s, self._ping)

    def _ping(self) -> None:
        """Sends a ping, so that a half-open connection ends."""
        if self.is_open:
            self._has_heard = False
            self._protocol.send_ping(b"")
            self._write()
            self._timer = self._loop.call_later(self._settings.ping_timeout_s, self._judge)

    def _judge(self) -> None:
        """Skips it while reading is paused, since pongs would queue too."""
        if self._phase is not ConnectionPhase.OPEN:
            return
        if self._has_heard or not self._is_reading:
            self._wait_to_ping()
        else:
            _log.warning("a client does not answer pings: disconnecting it")
            self.abort()

    def _end_soon(self) -> None:
        """Gives the peer its time to close, once; then cuts the connection."""
        if self._phase in (ConnectionPhase.REQUEST, ConnectionPhase.OPEN):
            self._phase = moved(_PHASES, self._phase, ConnectionPhase.ENDING)
            self._timer.cancel()
            self._timer = self._loop.call_later(self._settings.close_timeout_s, self.abort)


def _subprotocol(protocol: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Our subprotocol if it is offered, else none."""
    return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered else None
