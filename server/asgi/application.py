"""The ASGI application: lifespan, paths below `root_path`, and the routes' answers, in ASGI messages.

ASGI needs no library: it is a scope and two coroutines. App and its routes decide what is served, and to whom; our own
listener (server/http) is the other shell around them.
"""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from neucodec_streaming.errors import ConfigError, StreamingError
from neucodec_streaming.protocol.messages import SUBPROTOCOL
from neucodec_streaming.server.app import App
from neucodec_streaming.server.asgi.exchange import AsgiExchange
from neucodec_streaming.server.asgi.messages import Receive, Scope, Send
from neucodec_streaming.server.asgi.socket import AsgiSocket
from neucodec_streaming.server.http.exchange import HttpRequest
from neucodec_streaming.server.http.responses import upgrade_required
from neucodec_streaming.server.loading import load_engines
from neucodec_streaming.server.settings.fields import Settings
from neucodec_streaming.server.settings.sources import resolve
from neucodec_streaming.server.workers.worker import EngineLoader

OTHERS = ("tls_cert", "tls_key", "mqtt")
"""Settings of `neucodec-server` that an application cannot apply."""
READING = ("GET", "HEAD")
_log = logging.getLogger(__name__)


def create_app(settings: Settings | None = None) -> "Application":
    """Creates an ASGI application from the settings, or from NEUCODEC_... in the environment.

    `host` and `port` are the ASGI server's. Raises ConfigError.
    """
    return Application(resolve({}, os.environ).settings if settings is None else settings)


class Application:
    """Loads the model in `lifespan`, or at the first request. `load`, `apart` and `token_prefix` as in App.

    Raises ConfigError for settings that it cannot apply, and App's errors.
    """

    def __init__(
        self,
        settings: Settings,
        load: EngineLoader = load_engines,
        *,
        apart: bool = os.name == "posix",
        token_prefix: str = "",
    ) -> None:
        for name in OTHERS:
            if getattr(settings, name) is not None:
                raise ConfigError(
                    f"{name} is set, but an ASGI application does not support it: leave it out, or run neucodec-server"
                )
        self._settings = settings
        self._make = lambda: App(settings, load, apart=apart, token_prefix=token_prefix)
        self._app: App | None = None

    @property
    def app(self) -> App:
        """The server of the application. Asserts that loading was started by `lifespan` or a request."""
        assert self._app is not None, "neither lifespan nor a request came before"
        return self._app

    @asynccontextmanager
    async def lifespan(self, host: object = None) -> AsyncIterator[None]:
        """A lifespan for a host application, since frameworks send no lifespan messages to mounted applications.

        Inside, the model is warm; at the end sessions have `drain_s` to end. Raises errors of loading the model.
        """
        app = await self._begin()
        try:
            await app.loaded()
            yield
            await app.drain()
        finally:
            self._app = None
            await app.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, request, or the lifespan of a server."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        app = await self._begin() if self._app is None else self._app
        path = path_below(scope["path"], scope.get("root_path", ""))
        if scope["type"] == "websocket":
            await self._serve_socket(app, path, scope, receive, send)
        elif scope["method"] in READING:
            outcome = app.routes.answer(_request(scope, path), _peer(scope), False)
            response = outcome if isinstance(outcome, Response) else upgrade_required()
            await _respond(send, response, "http.response")
        else:
            headers = _headers(scope)
            exchange = AsgiExchange(receive, send, self._settings, app.connections)
            await exchange.serve(app.posts.answer, HttpRequest(scope["method"], path, headers, b"", _peer(scope)))

    async def _begin(self) -> App:
        app = self._app = self._make()
        await app.start_workers()
        return app

    async def _live(self, receive: Receive, send: Send) -> None:
        """The lifespan protocol. A model that cannot be loaded stops the server, which logs the reason."""
        await receive()
        phase = "startup"
        try:
            async with self.lifespan():
                await send({"type": "lifespan.startup.complete"})
                await receive()
                phase = "shutdown"
            await send({"type": "lifespan.shutdown.complete"})
        except Exception as error:
            if not isinstance(error, StreamingError):
                _log.exception("%s failed", phase)
            await send({"type": f"lifespan.{phase}.failed", "message": str(error)})

    async def _serve_socket(self, app: App, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # connect
        outcome = app.routes.answer(_request(scope, path), _peer(scope), True)
        if isinstance(outcome, Response):
            if "websocket.http.response" in (scope.get("extensions") or {}):
                await _respond(send, outcome, "websocket.http.response")
            else:
                await send({"type": "websocket.close"})  # status 403, without a reason
            return
        assert outcome is not None, "it asks for a WebSocket"
        subprotocol = SUBPROTOCOL if SUBPROTOCOL in scope.get("subprotocols", ()) else None
        await AsgiSocket(receive, send, self._settings, app.connections).serve(outcome, subprotocol)


def path_below(path: str, root_path: str) -> str:
    """The path within the application; some servers leave `root_path` out of `path`."""
    root = root_path.rstrip("/")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def _request(scope: Scope, path: str) -> Request:
    """The request as our own listener has it: a quoted path, and its query."""
    query = scope.get("query_string", b"").decode("latin-1")
    return Request(quote(path) + (f"?{query}" if query else ""), _headers(scope))


def _headers(scope: Scope) -> Headers:
    return Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else ""


async def _respond(send: Send, response: Response, kind: str) -> None:
    """Sends a whole answer, to a request or in place of a WebSocket."""
    own = ("date", "connection", "server")  # set by the ASGI server
    fields = [(name.lower(), value) for name, value in response.headers.raw_items() if name.lower() not in own]
    headers = [(name.encode(), value.encode("latin-1")) for name, value in fields]
    await send({"type": f"{kind}.start", "status": response.status_code, "headers": headers})
    await send({"type": f"{kind}.body", "body": bytes(response.body)})
