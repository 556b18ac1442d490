"""The server as a whole: the listening socket, who is let in, and the device thread; `start` and `stop`.

The socket is claimed before the model loads, so that a busy port is known at once; until the model is warm, sessions
are refused with 503 and /readyz says no.
"""

import asyncio
import errno
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from server.admission import Admission
from server.auth import Keys
from server.connection import Connection
from server.gate import Gate, Visitor
from server.http import HEALTH_PATH, METRICS_PATH, READY_PATH, answer, not_found, plain, refusal
from server.metrics import CONTENT_TYPE, Metrics
from server.model import Model, latency_ms, load_engines
from server.pages import load_pages, page_response
from server.settings import Settings
from server.tls import Certificate
from server.worker import DeviceThread, Event, Link
from streaming.config import StreamConfig
from streaming.engine.engine import STAGES, Engine
from streaming.errors import CapacityError, ConfigError, DeviceError, StreamingError
from streaming.protocol.messages import SUBPROTOCOL, Ready
from streaming.protocol.query import SessionRequest, parse_target

Load = Callable[[Settings], tuple[list[Engine], Model]]

_log = logging.getLogger(__name__)


class App:
    """One server in one event loop. `load` makes the engines and the model, in the first device thread."""

    def __init__(self, settings: Settings, load: Load = load_engines) -> None:
        self._settings = settings
        self._load = load
        self._model: Model | None = None
        self._admission: Admission | None = None
        self._capacity: dict[tuple[str, str], int] = {}  # by kind and profile
        self._made: tuple[list[Engine], Model] | None = None  # by the first device thread
        self._devices: list[DeviceThread] = []
        self._loading: asyncio.Task[None] | None = None
        self._server: Server | None = None
        self._metrics = Metrics()
        self._gate = _gate(settings)
        self._certificate = _certificate(settings)
        self._pages = load_pages() if settings.web else {}
        self._admitted: dict[ServerConnection, tuple[SessionRequest, int, Visitor]] = {}  # and the worker
        self._handled: set[ServerConnection] = set()
        self._released = asyncio.Event()

    @property
    def url(self) -> str:
        """Where the server listens, ws://host:port, or wss:// with a certificate."""
        assert self._server is not None, "not started"
        host, port = next(iter(self._server.sockets)).getsockname()[:2]
        scheme = "ws" if self._certificate is None else "wss"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    @property
    def sessions(self) -> int:
        """How many are open or about to be."""
        return len(self._admitted)

    async def emptied(self, down_to: int = 0) -> None:
        """Returns when no more than that many sessions are open."""
        while self.sessions > down_to:
            self._released.clear()
            await self._released.wait()

    @property
    def model(self) -> Model | None:
        """What is served, None until it is loaded and warm."""
        return self._model

    def room(self) -> int:
        """How many roundtrip sessions of the default profile an empty server holds."""
        assert self._model is not None, "not loaded"
        return self._capacity["roundtrip", self._model.default_profile]

    async def start(self) -> None:
        """Claims the address and begins to load; `loaded` waits for the model. Raises ConfigError for a busy port."""
        settings = self._settings
        quiet = logging.getLogger(f"{__name__}.websockets")
        quiet.setLevel(logging.CRITICAL)
        try:
            self._server = await serve(
                self._handle,
                settings.host,
                settings.port,
                process_request=self._admit,
                select_subprotocol=_subprotocol,
                compression=None,
                max_size=settings.max_message_bytes * 2,  # above the limit that has a message of its own
                open_timeout=settings.open_timeout_s,
                close_timeout=settings.close_timeout_s,
                ping_interval=None,  # Connection pings itself
                server_header="neucodec-streaming",
                ssl=None if self._certificate is None else self._certificate.context,
                ssl_handshake_timeout=None if self._certificate is None else settings.open_timeout_s,
                logger=quiet,
            )
        except OSError as error:
            raise ConfigError(_why_not_bound(settings, error)) from None
        _log.info("listening at %s, loading model %s", self.url, settings.model)
        self._add_device(0)
        self._loading = asyncio.create_task(self._start_others(), name="loading")

    async def loaded(self) -> None:
        """Returns when sessions can be opened. Raises ModelError or whatever else prevented it."""
        assert self._loading is not None, "not started"
        await asyncio.shield(self._loading)

    async def stop(self) -> None:
        """Closes every connection with 1001 and ends the device threads."""
        if self._server is not None:
            self._server.close()
            try:
                async with asyncio.timeout(self._settings.stop_timeout_s):
                    await self._server.wait_closed()
            except TimeoutError:
                _log.error("%d sessions did not end within %.0f s", self.sessions, self._settings.stop_timeout_s)
        if self._loading is not None:
            self._loading.cancel()
        await asyncio.gather(*(device.stop(self._settings.stop_timeout_s) for device in self._devices))

    def _add_device(self, worker: int) -> None:
        self._devices.append(DeviceThread(partial(self._engine, worker), time.monotonic))
        self._devices[-1].start()

    def _engine(self, worker: int) -> Engine:
        """What a device thread steps; the first to ask loads those of all."""
        if self._made is None:
            self._made = self._load(self._settings)
        return self._made[0][worker]

    async def _start_others(self) -> None:
        """Once the first device thread has loaded the model: the others, and then the server is ready."""
        await self._devices[0].loaded()
        assert self._made is not None, "the first thread has loaded"
        engines, model = self._made
        for worker in range(1, len(engines)):
            self._add_device(worker)
        await asyncio.gather(*(device.loaded() for device in self._devices))
        self._admission = admission = Admission(model.budget, self._settings.max_sessions, len(engines))
        self._capacity = {
            (kind, name): admission.capacity(kind, config) for name, config in model.profiles.items() for kind in STAGES
        }
        for (kind, name), count in self._capacity.items():
            self._metrics.capacity.labels(kind, name).set(count)
        self._metrics.max_load.set(model.budget.max_load)
        self._model = model

    def _why_not_ready(self) -> str | None:
        if self._model is None or not all(device.alive for device in self._devices):
            return "the model is not loaded yet"
        stuck_s = max(device.stuck_for_s() for device in self._devices)
        if stuck_s > self._settings.stuck_after_s:
            return f"the device has been busy with one step for {stuck_s:.0f} s"
        return None

    def _admit(self, socket: ServerConnection, request: Request) -> Response | None:
        """Answers probes, refuses what cannot be served, and reserves a place for what can."""
        path = urlsplit(request.path).path
        if path == HEALTH_PATH:
            return answer(socket, HTTPStatus.OK, {"alive": True})
        if path == READY_PATH:
            return self._readiness(socket)
        if path == METRICS_PATH:
            return plain(socket, HTTPStatus.OK, self._metrics.text(), CONTENT_TYPE)
        if path in self._pages:
            return page_response(self._pages[path], request)
        try:
            asked = parse_target(request.path)
            if asked is None:
                return not_found(socket, path)
            visitor = self._gate.check(request.headers, asked.access_token, socket.remote_address[0])
            profile, config = self._ready_model().profile(asked.profile)
            if "websocket" in map(str.lower, request.headers.get_all("Upgrade")):
                self._reserve(socket, asked, profile, config, visitor)
        except StreamingError as error:
            return self._refuse(socket, error)
        except ValueError as error:
            return self._refuse(socket, ConfigError(f"the URL cannot be read: {error}"))
        return None

    def _refuse(self, socket: ServerConnection, error: StreamingError) -> Response:
        self._metrics.refusals.labels(error.code).inc()
        return refusal(socket, error)

    def _ready_model(self) -> Model:
        """What is served. Raises DeviceError while it cannot be."""
        why_not = self._why_not_ready()
        if why_not is not None or self._model is None:
            raise DeviceError(f"{why_not}: try again soon")
        return self._model

    def _reserve(
        self, socket: ServerConnection, asked: SessionRequest, profile: str, config: StreamConfig, visitor: Visitor
    ) -> None:
        """A place for a session. Raises CapacityError, of a key or an address LimitError."""
        assert self._admission is not None, "the model is ready"
        self._gate.enter(visitor)
        try:
            worker = self._admission.admit(asked.kind, config)
        except CapacityError:
            self._gate.leave(visitor)
            raise
        self._admitted[socket] = asked, worker, visitor
        self._count(asked.kind, profile, 1)
        socket.connection_lost_waiter.add_done_callback(lambda _: self._release_unhandled(socket))

    def _count(self, kind: str, profile: str, more: int) -> None:
        assert self._admission is not None, "nobody is admitted before"
        self._metrics.sessions.labels(kind, profile).inc(more)
        self._metrics.load.set(self._admission.load)

    def _readiness(self, socket: ServerConnection) -> Response:
        why_not = self._why_not_ready()
        body: dict[str, object] = {"ready": why_not is None, "sessions": self.sessions}
        body["max_sessions"] = self._settings.max_sessions
        if why_not is not None or self._model is None or self._admission is None:
            body["reason"] = why_not
            return answer(socket, HTTPStatus.SERVICE_UNAVAILABLE, body)
        body |= {"load": round(self._admission.load, 3), "max_load": self._settings.max_load}
        body["model"] = self._model.name
        body["profiles"] = {
            name: {
                "chunk_frames": config.chunk_frames,
                "lookahead_frames": config.lookahead_frames,
                "capacity": {kind: self._capacity[kind, name] for kind in STAGES},
            }
            for name, config in self._model.profiles.items()
        }
        return answer(socket, HTTPStatus.OK, body)

    def _release_unhandled(self, socket: ServerConnection) -> None:
        """A connection that was lost before its handler began."""
        if socket in self._admitted and socket not in self._handled:
            self._release(socket)

    def _release(self, socket: ServerConnection) -> None:
        assert self._model is not None and self._admission is not None, "nobody is admitted before"
        asked, worker, visitor = self._admitted.pop(socket)
        self._gate.leave(visitor)
        profile, config = self._model.profile(asked.profile)
        self._admission.release(worker, asked.kind, config)
        self._count(asked.kind, profile, -1)
        self._released.set()

    async def _handle(self, socket: ServerConnection) -> None:
        """One admitted connection, from `ready` to its end."""
        assert self._model is not None, "nobody is admitted before"
        self._handled.add(socket)
        try:
            asked, worker, visitor = self._admitted[socket]
            profile, config = self._model.profile(asked.profile)
            ready = Ready(
                session=uuid.uuid4().hex[:12],
                model=self._model.name,
                profile=profile,
                chunk_frames=config.chunk_frames,
                lookahead_frames=config.lookahead_frames,
                latency_ms=latency_ms(asked.kind, config, asked.input, asked.output),
                input=asked.input,
                output=asked.output,
                capacity=self._capacity[asked.kind, profile],
            )
            link = Link(asked.kind, config, asked.input, asked.output, _nobody)
            _log.info(
                "session %s of %s opened: %s, profile %s",
                *(ready.session, visitor, asked.kind, profile),
                extra={"session": ready.session},
            )
            await Connection(socket, asked, ready, link, self._devices[worker], self._settings, self._metrics).run()
        finally:
            self._handled.discard(socket)
            self._release(socket)


def _gate(settings: Settings) -> Gate:
    """The doorkeeper that the settings ask for. Raises ConfigError."""
    file = Path(settings.api_keys_file) if settings.api_keys_file else None
    return Gate(
        Keys(file, settings.api_keys, time.monotonic),
        clock=time.monotonic,
        origins=settings.allow_origins,
        trusted_proxies=settings.trusted_proxies,
        max_attempts_per_minute=settings.max_attempts_per_minute,
        max_sessions_per_key=settings.max_sessions_per_key,
        max_sessions_per_address=settings.max_sessions_per_address,
    )


def _certificate(settings: Settings) -> Certificate | None:
    """What to listen with; None: without TLS. Raises ConfigError."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return Certificate(Path(settings.tls_cert), Path(settings.tls_key), time.monotonic)


def _subprotocol(socket: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Ours when it is offered; none is fine."""
    return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered else None


def _nobody(event: Event) -> None:
    """The receiver of a link that has no connection yet."""


def _why_not_bound(settings: Settings, error: OSError) -> str:
    where = f"{settings.host}:{settings.port}"
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {settings.port} is in use ({where}): stop what listens there, or give another --port (0: any free)"
        )
    if error.errno == errno.EACCES:
        return f"port {settings.port} may not be used by this user ({where}): give a --port of 1024 or more"
    return f"cannot listen at {where} ({error}): give a --host of this machine"
