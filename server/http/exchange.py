"""One HTTP request with a method other than GET or HEAD, and its answer; takes over a WebSocket's connection.

The protocol is h11's, without I/O. A request is read completely, up to a size limit and a deadline. Its handler runs as
the connection's only task and is cancelled when the client disconnects. Every answer ends the connection.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, cast
from typing import Protocol as Interface

import h11
from websockets.datastructures import Headers
from websockets.http11 import Response

from neucodec_streaming.server.http.responses import SERVER_NAME, failure
from neucodec_streaming.server.settings.fields import Settings

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HttpRequest:
    """A complete request; `path` has no query, `peer` is the address of the socket."""

    method: str
    path: str
    headers: Headers
    body: bytes
    peer: str


class Exchange(Interface):
    """A handler's answer to a request: by `begin`, `write` and `finish`, or whole by `reply_with`."""

    @property
    def has_begun(self) -> bool:
        """Whether an answer has started."""

    def begin(self, status: HTTPStatus, headers: Mapping[str, str]) -> None:
        """Starts an answer; without Content-Length it is sent in chunks."""

    def write(self, data: bytes) -> None:
        """Sends a part of the answer; wait for `drained` before the next."""

    async def drained(self) -> None:
        """Waits until the client has taken enough."""

    def finish(self) -> None:
        """Completes the answer."""

    def abort(self) -> None:
        """Cuts the connection: the client sees that the answer is incomplete."""


HttpHandler = Callable[[HttpRequest, Exchange], Coroutine[Any, Any, None]]
"""Answers a request."""


def reply_with(exchange: Exchange, response: Response) -> None:
    """Sends a whole response, without the headers that the exchange adds itself."""
    own = ("Date", "Connection")
    headers = {name: value for name, value in response.headers.raw_items() if name not in own}
    exchange.begin(HTTPStatus(response.status_code), headers)
    exchange.write(bytes(response.body))
    exchange.finish()


def refuse(exchange: Exchange, status: HTTPStatus, message: str) -> None:
    """Answers a request that is invalid or too long, or that failed."""
    reply_with(exchange, failure(status, "bad_message", message))


def refuse_length(exchange: Exchange, max_bytes: int) -> None:
    """Answers a request whose body exceeds the limit."""
    message = f"the body is longer than {max_bytes} bytes: send a shorter one"
    refuse(exchange, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)


class HttpExchange(asyncio.Protocol):
    """A connection with one request; `connections` contains it while it is open."""

    def __init__(self, handler: HttpHandler, settings: Settings, connections: set[Any]) -> None:
        self._handler = handler
        self._settings = settings
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._parser = h11.Connection(h11.SERVER)
        self._head: h11.Request | None = None
        self._body = bytearray()
        self._lingers = False
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle
        self._writable = asyncio.Event()
        self._writable.set()
        self.gone: asyncio.Future[None] = self._loop.create_future()
        """Done when the connection is closed."""

    # What handlers call: the interface Exchange

    @property
    def has_begun(self) -> bool:
        return self._parser.our_state not in (h11.IDLE, h11.SEND_RESPONSE)

    def begin(self, status: HTTPStatus, headers: Mapping[str, str]) -> None:
        always = {"Date": formatdate(usegmt=True), "Server": SERVER_NAME, "Connection": "close"}
        fields = [(name.encode(), value.encode()) for name, value in {**always, **headers}.items()]
        self._send(h11.Response(status_code=status.value, reason=status.phrase.encode(), headers=fields))

    def write(self, data: bytes) -> None:
        if data:
            self._send(h11.Data(data=data))

    async def drained(self) -> None:
        await self._writable.wait()

    def finish(self) -> None:
        self._send(h11.EndOfMessage())
        if self._parser.their_state is h11.DONE:
            self._transport.close()
        else:
            self._linger()

    def abort(self) -> None:
        self._transport.abort()

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        self._timer = self._loop.call_later(self._settings.open_timeout_s, self.abort)

    def data_received(self, data: bytes) -> None:
        if self._task is not None or self._lingers or self._transport.is_closing():
            return  # there is one request, and it is complete or refused
        try:
            self._parser.receive_data(data)
            while (event := self._parser.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                self._take(event)
                if self._task is not None or self._lingers:
                    return
        except h11.RemoteProtocolError as error:
            self._refuse(HTTPStatus(error.error_status_hint), str(error))

    def eof_received(self) -> None:
        if not self._lingers:  # else the transport closes itself
            self.abort()

    def pause_writing(self) -> None:
        self._writable.clear()
        self._timer.cancel()
        self._timer = self._loop.call_later(self._settings.send_timeout_s, self.abort)

    def resume_writing(self) -> None:
        self._timer.cancel()
        self._writable.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.discard(self)
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        self.gone.set_result(None)

    # Reading

    def _take(self, event: Any) -> None:
        if isinstance(event, h11.Request):
            self._head = event
            if self._parser.they_are_waiting_for_100_continue:
                self._send(h11.InformationalResponse(status_code=100, headers=[]))
        elif isinstance(event, h11.Data):
            self._body += event.data
            if len(self._body) > self._settings.max_message_bytes:
                refuse_length(self, self._settings.max_message_bytes)
        elif isinstance(event, h11.EndOfMessage):
            self._timer.cancel()
            self._task = self._loop.create_task(self._handle(), name="http request")

    async def _handle(self) -> None:
        assert self._head is not None, "complete"
        peer = self._transport.get_extra_info("peername")
        fields = Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in self._head.headers)
        path = self._head.target.decode("latin-1").partition("?")[0]
        method = self._head.method.decode("latin-1")
        try:
            await self._handler(HttpRequest(method, path, fields, bytes(self._body), peer[0] if peer else ""), self)
        except Exception:
            _log.exception("a request failed")
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error")

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Answers with the error, or cuts an answer that has begun."""
        if self.has_begun:
            self.abort()
        else:
            refuse(self, status, message)

    def _linger(self) -> None:
        """Reads on for a while: a client that still sends would lose the answer if the connection closed."""
        self._lingers = True
        if self._transport.can_write_eof():  # not with TLS
            self._transport.write_eof()
        self._timer.cancel()
        self._timer = self._loop.call_later(self._settings.close_timeout_s, self.abort)

    def _send(self, event: Any) -> None:
        data = self._parser.send(event)
        if data and not self._transport.is_closing():
            self._transport.write(data)
