"""HTTP requests other than GET and HEAD over ASGI: read completely, then answered by a handler of server/http.

The handler runs as a task, which is cancelled when the client disconnects. Its writes are sent at its next `drained`.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from neucodec_streaming.server.asgi.messages import AsgiMessage, Receive, Send
from neucodec_streaming.server.http.exchange import HttpHandler, HttpRequest, refuse, refuse_length
from neucodec_streaming.server.settings.fields import Settings

_log = logging.getLogger(__name__)


class ClientLeft(Exception):
    """The client disconnected or stalled before its request was answered."""


class AsgiExchange:
    """One request; `connections` contains it while it is open."""

    def __init__(self, receive: Receive, send: Send, settings: Settings, connections: set[Any]) -> None:
        self._receive, self._send = receive, send
        self._settings = settings
        self._connections = connections
        self._unsent: deque[AsgiMessage] = deque()
        self._task: asyncio.Task[None] | None = None
        self.has_begun = False
        """Whether an answer has started."""
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the connection is closed."""

    # What handlers call: the interface Exchange

    def begin(self, status: HTTPStatus, headers: Mapping[str, str]) -> None:
        fields = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        self.has_begun = True
        self._unsent.append({"type": "http.response.start", "status": status.value, "headers": fields})

    def write(self, data: bytes) -> None:
        self._unsent.append({"type": "http.response.body", "body": data, "more_body": True})

    async def drained(self) -> None:
        """Waits until the client has taken enough. Raises ClientLeft if it disconnects or takes nothing."""
        while self._unsent:
            try:
                async with asyncio.timeout(self._settings.send_timeout_s):
                    await self._send(self._unsent.popleft())
            except OSError as error:  # such as TimeoutError
                raise ClientLeft from error

    def finish(self) -> None:
        self._unsent.append({"type": "http.response.body", "body": b"", "more_body": False})

    def abort(self) -> None:
        """Cuts the connection by leaving the answer incomplete."""
        self._unsent.clear()
        if self._task is not None:
            self._task.cancel()

    # The connection

    async def serve(self, handler: HttpHandler, request: HttpRequest) -> None:
        """Reads the body and runs the handler. If the client disconnects, the answer stays incomplete."""
        self._connections.add(self)
        try:
            async with asyncio.timeout(self._settings.open_timeout_s):
                body = await self._read_body()
            if body is None:
                refuse_length(self, self._settings.max_message_bytes)
                await self.drained()
            else:
                await self._answer(handler, replace(request, body=body))
        except (ClientLeft, TimeoutError):
            _log.info("%s %s: the client disconnected or stalled", request.method, request.path)
        finally:
            self._connections.discard(self)
            self.gone.set_result(None)

    async def _read_body(self) -> bytes | None:
        """Reads the body; None if it is too long. Raises ClientLeft."""
        body = bytearray()
        while True:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise ClientLeft
            body += event.get("body", b"")
            if len(body) > self._settings.max_message_bytes:
                return None
            if not event.get("more_body", False):
                return bytes(body)

    async def _answer(self, handler: HttpHandler, request: HttpRequest) -> None:
        self._task = asyncio.create_task(self._handle(handler, request), name="http request")
        leaving = asyncio.create_task(self._left(), name="client leaves")
        tasks = self._task, leaving
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _handle(self, handler: HttpHandler, request: HttpRequest) -> None:
        try:
            await handler(request, self)
            await self.drained()
        except ClientLeft:
            return
        except Exception:
            _log.exception("a request failed")
            if not self.has_begun:
                refuse(self, HTTPStatus.INTERNAL_SERVER_ERROR, "internal error")
                await self.drained()

    async def _left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
