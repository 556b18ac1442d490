"""One TCP connection: an HTTP request, and after the upgrade a WebSocket. The protocol is websockets' own, without I/O.

No task runs behind a connection: bytes are parsed as they come, and whoever owns it is called. No connection takes the
event loop from the others, whatever it sends: a read may bring thousands of frames, so others have their turn after
some of them, and messages other than payload, whose bound is the session's, are parsed no faster than a set pace; the
rest waits, and with it the client. The JSON of text messages is read and written here (transport.py).
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
from neucodec_streaming.server.http.responses import plain
from neucodec_streaming.server.lifecycle import moved
from neucodec_streaming.server.sessions.pace import MessagePace
from neucodec_streaming.server.sessions.transport import SessionHandler, hand_on
from neucodec_streaming.server.settings.fields import Settings

SERVER_NAME = "neucodec-streaming"
READ_BYTES = 16_384
"""The most that is read at once: a peer that is gone is noticed behind it, and it may be 2,700 frames of nothing."""
TURN_FRAMES = 256
"""Frames that are parsed before other connections have their turn."""
CRUMB_BYTES = 1024
"""A read of fewer bytes that completes nothing is as much work as a message, and counts as one."""
MAX_UNSENT_BYTES = 1 << 18
"""With more than that to be sent (to a flood of pings, say), nothing is read."""
OTHER_METHODS = frozenset({b"P", b"D", b"O", b"T", b"C"})
"""How methods other than GET and HEAD begin: POST, PUT, PATCH, DELETE, OPTIONS, TRACE, CONNECT."""
_OPEN = State.OPEN
_log = logging.getLogger(__name__)
_quiet = logging.getLogger(f"{__name__}.protocol")
_quiet.setLevel(logging.CRITICAL)  # it tells of URLs, and keys may be in them


RequestHandler = Callable[[Request, str, bool], Response | SessionHandler | None]
"""Request, address of the peer, whether it asks for a WebSocket -> an answer, or who gets the WebSocket.

None, where it does not ask: what RFC 6455 has for a bad handshake.
"""


class ConnectionPhase(Enum):
    """Where a connection is: before its request is answered, a WebSocket, ending, or gone."""

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
    """A connection that was accepted; `sockets` holds it while it lasts.

    `other` makes the protocol of connections whose request has another method than GET or HEAD.
    """

    def __init__(
        self,
        handler: RequestHandler,
        settings: Settings,
        sockets: set[Any],
        other: Callable[[], asyncio.Protocol] | None = None,
    ) -> None:
        self._handler = handler
        self._other = other
        self._settings = settings
        self._sockets = sockets
        self._loop = asyncio.get_running_loop()
        max_bytes = settings.max_message_bytes * 2  # above the limit that has a message of its own
        self._protocol = ServerProtocol(select_subprotocol=_subprotocol, max_size=max_bytes, logger=_quiet)
        self._reader = FrameReader(self._protocol, max_bytes)
        self._phase = ConnectionPhase.REQUEST
        self._listener: SessionHandler | None = None
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle  # for the request, then for pings, then for the end
        self._stalled: asyncio.TimerHandle | None = None
        self._next: asyncio.Handle | None = None
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._is_reading = True
        self._has_heard = True
        self._has_read = False
        self._pace = MessagePace(settings.max_messages_per_s, self._loop.time)
        self.is_writable = True
        self.is_held = False
        """Whether nothing is read, by `hold`."""
        self.gone: asyncio.Future[None] = self._loop.create_future()
        """Done when the connection is."""

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._protocol.state is _OPEN

    def send(self, message: bytes | ServerMessage) -> None:
        """Sends a message; look at `is_open` and `is_writable` first."""
        if isinstance(message, bytes):
            self._transport.writelines((binary_header(len(message)), message))
        else:
            self._protocol.send_text(encode_message(message).encode())
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
        if self._other is not None and not self._has_read and bytes(self._buffer[:1]) in OTHER_METHODS:
            self._hand_over(self._other(), bytes(self._buffer[:size]))
            return
        self._has_heard = self._has_read = True
        self._reader.feed(self._buffer[:size])
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
        """The connection, and what has been read of it, belong to another protocol from here on."""
        self._sockets.discard(self)
        self._timer.cancel()
        self._phase = moved(_PHASES, self._phase, ConnectionPhase.GONE)
        self.gone.set_result(None)
        self._transport.set_protocol(other)
        other.connection_made(self._transport)
        other.data_received(data)

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
                self.abort()  # the peer is gone: what it has sent may be minutes of this pace
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
        self._write()  # pongs, the answer to a close, what to say to a frame that cannot be
        if self._protocol.close_expected():
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
        if self._phase is not ConnectionPhase.OPEN:
            return
        if self._has_heard or not self._is_reading:
            self._wait_to_ping()
        else:
            _log.warning("a client does not answer pings: disconnected")
            self.abort()

    def _end_soon(self) -> None:
        """The peer has its time to close, counted once; then the connection is cut."""
        if self._phase in (ConnectionPhase.REQUEST, ConnectionPhase.OPEN):
            self._phase = moved(_PHASES, self._phase, ConnectionPhase.ENDING)
            self._timer.cancel()
            self._timer = self._loop.call_later(self._settings.close_timeout_s, self.abort)


def _subprotocol(protocol: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Ours when it is offered; none is fine."""
    return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered else None
