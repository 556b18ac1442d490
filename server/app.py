"""The whole server: the listening socket, access control and the workers; `start`, `drain` and `stop`.

The socket is bound before the model loads, so that a busy port is reported at once. Until the model is warm, sessions
are refused with 503 and /readyz says no; also while the server stops, or when a device is stuck or dead, whose sessions
then end with an error.
"""

import asyncio
import errno
import logging
import time
from dataclasses import replace
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol as Interface

from neucodec_streaming.errors import CapacityError, ConfigError, DeviceError, reason_of
from neucodec_streaming.protocol.query import SessionRequest
from neucodec_streaming.protocol.speech_lm import SpeechLMSpec
from neucodec_streaming.server.auth.gate import Caller, Gate
from neucodec_streaming.server.auth.keys import Keys
from neucodec_streaming.server.auth.tls import Certificate
from neucodec_streaming.server.http.exchange import HttpExchange
from neucodec_streaming.server.http.other_codecs import CompareEndpoint
from neucodec_streaming.server.http.posts import Posts
from neucodec_streaming.server.http.routes import Routes
from neucodec_streaming.server.http.speech import SpeechEndpoint
from neucodec_streaming.server.http.websocket import READ_BYTES, WebSocket
from neucodec_streaming.server.loading import load_engines
from neucodec_streaming.server.metrics import Metrics
from neucodec_streaming.server.model import Model
from neucodec_streaming.server.quiet_measurement import measured_quietly
from neucodec_streaming.server.sessions.registry import Sessions
from neucodec_streaming.server.sessions.session import Session
from neucodec_streaming.server.settings.fields import Settings
from neucodec_streaming.server.workers.handle import WorkerHandle, WorkerPool
from neucodec_streaming.server.workers.messages import TimedStep
from neucodec_streaming.server.workers.worker import EngineLoader

WATCH_INTERVAL_S = 1.0
"""Interval of checking the devices."""

_log = logging.getLogger(__name__)


class OpenConnection(Interface):
    """The server's interface to each of its connections."""

    gone: asyncio.Future[None]
    """Done when the connection is closed."""

    def abort(self) -> None:
        """Cuts the connection."""


class App:
    """One server in one event loop. `load` creates the engines and the model, in a separate process if `apart`.

    `token_prefix` (without a dot) starts every resume token, so that a router can recognise the server.
    """

    def __init__(
        self, settings: Settings, load: EngineLoader = load_engines, *, apart: bool = False, token_prefix: str = ""
    ) -> None:
        self._settings = settings
        self._token_prefix = token_prefix
        self.registry: Sessions | None = None
        """All sessions; None until the model is loaded and warm."""
        self._devices = WorkerPool(settings, load, apart=apart, on_step=self._count_step)
        self._tasks: list[asyncio.Task[None]] = []
        self._server: asyncio.Server | None = None
        self.connections: set[OpenConnection] = set()
        """Open connections; `stop` waits for them."""
        self._is_draining = False
        self._metrics = Metrics()
        self._step_time = cache(self._metrics.step.labels)
        self._gate = _gate(settings)
        self._certificate = _certificate(settings)
        compare = CompareEndpoint(self._gate, self._metrics) if settings.web else None
        self.routes = Routes(self, self._gate, self._metrics, settings, compare.codecs if compare is not None else ())
        """Answers GET and HEAD, and opens sessions."""
        self._speech = _speech(self, settings, self._gate, self._metrics)
        self.posts = Posts(self._speech, compare)
        """Answers every other method."""

    @property
    def url(self) -> str:
        """The server's URL, ws://host:port, or wss:// with a certificate."""
        assert self._server is not None, "not started"
        host, port = next(iter(self._server.sockets)).getsockname()[:2]
        scheme = "ws" if self._certificate is None else "wss"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    @property
    def _is_local(self) -> bool:
        """Whether the server only listens on loopback."""
        assert self._server is not None, "started"
        return all(ip_address(socket.getsockname()[0]).is_loopback for socket in self._server.sockets)

    @property
    def sessions(self) -> int:
        """Number of sessions with a place."""
        return 0 if self.registry is None else self.registry.count

    async def emptied(self, down_to: int = 0) -> None:
        """Waits until at most `down_to` sessions have a place."""
        if self.registry is not None:
            await self.registry.emptied(down_to)

    @property
    def model(self) -> Model | None:
        """The served model; None until it is loaded and warm."""
        return None if self.registry is None else self.registry.model

    def room(self) -> int:
        """Number of sessions that fit on the empty server, in the default profile, of the most expensive kind."""
        assert self.registry is not None, "not loaded"
        model = self.registry.model
        return self.registry.capacity[model.kinds[-1], model.default_profile]

    async def start(self) -> None:
        """Binds the address and starts loading; `loaded` waits for the model. Raises ConfigError for a busy port."""
        settings, buffer = self._settings, memoryview(bytearray(READ_BYTES))
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: WebSocket(self.routes.answer, settings, self.connections, buffer, self._exchange),
                settings.host,
                settings.port,
                ssl=None if self._certificate is None else self._certificate.context,
                ssl_handshake_timeout=None if self._certificate is None else settings.open_timeout_s,
            )
        except OSError as error:
            raise ConfigError(_why_not_bound(settings, error)) from None
        _log.info("listening at %s, loading model %s", self.url, settings.model)
        if self._gate.is_open and not self._is_local:
            _log.warning("anyone who can reach %s can open sessions: set API keys (docs/security.md)", self.url)
        await self.start_workers()

    async def start_workers(self) -> None:
        """Starts loading; `loaded` waits for the model. Opens no socket: for hosts that listen themselves (ASGI)."""
        await self._devices.start()
        self._tasks.append(asyncio.create_task(self._begin(), name="loading"))

    async def loaded(self) -> None:
        """Waits until sessions can be opened. Raises ModelError or another error of loading."""
        assert self._tasks, "not started"
        await asyncio.shield(self._tasks[0])

    async def failed(self) -> None:
        """Waits until a worker ends unexpectedly."""
        await self._devices.lost.wait()

    def open(self, asked: SessionRequest, caller: Caller) -> Session:
        """Opens a session for another transport than our own sockets.

        Raises ConfigError, CapacityError, DeviceError.
        """
        return self.ready().open(asked, caller)

    async def drain(self) -> None:
        """Accepts no new sessions, and waits until the open ones have ended, or for `drain_s`."""
        self._is_draining = True
        if self.registry is not None:
            self.registry.give_up_idle()
        self._metrics.draining.set(1)
        try:
            async with asyncio.timeout(self._settings.drain_s):
                await self.emptied()
        except TimeoutError:
            _log.info("asking %d sessions to resume elsewhere", self.sessions)

    async def stop(self) -> None:
        """Ends every session with status 1012, then the workers."""
        settings = self._settings
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        if self.registry is not None:
            self.registry.restart()
        if self.connections:
            await asyncio.wait([socket.gone for socket in self.connections], timeout=settings.stop_timeout_s)
        for socket in list(self.connections):
            _log.error("a connection did not close within %.0f s: aborting it", settings.stop_timeout_s)
            socket.abort()
        if self._speech is not None:
            await self._speech.aclose()
        await self._devices.stop(settings.stop_timeout_s)

    def _exchange(self) -> HttpExchange:
        return HttpExchange(self.posts.answer, self._settings, self.connections)

    async def _begin(self) -> None:
        """Becomes ready once the workers have loaded the model."""
        model = await self._devices.loaded()
        self._metrics.watch_workers(self._devices.pids)
        self.registry = sessions = Sessions(
            model, self._gate, self._devices.all, self._settings, self._metrics, self._token_prefix
        )
        self._tasks.append(asyncio.create_task(self._watch(sessions), name="watch"))
        if model.is_measured_busy:
            self._tasks.append(asyncio.create_task(self._measure_again(sessions), name="measurement"))

    async def _measure_again(self, sessions: Sessions) -> None:
        model = sessions.model
        pools = {pool: tuple(times) for pool, times in model.budget.step_s.items()}
        step_s = await measured_quietly(sessions, self._devices.all, pools)
        sessions.use_budget(replace(model.budget, step_s=step_s))
        _log.info("measured again while the machine was idle: room for %d %s sessions", self.room(), model.kinds[-1])

    def _count_step(self, step: TimedStep) -> None:
        part, profile, seconds = step
        self._step_time(part, profile).observe(seconds)

    async def _watch(self, sessions: Sessions) -> None:
        """Ends sessions of stuck or dead devices with an error."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            for device in self._devices.all:
                why = self._why_not_working(device)
                if why is not None:
                    sessions.fail(device, DeviceError(f"{why}: reconnect, or use another server"))

    def _why_not_working(self, device: WorkerHandle) -> str | None:
        if not device.alive:
            return "a worker has stopped"
        stuck_s = device.stuck_for_s()
        is_stuck = stuck_s > self._settings.stuck_after_s
        return f"the device has been busy with a single step for {stuck_s:.0f} s" if is_stuck else None

    @property
    def _has_failed_to_load(self) -> bool:
        return self.registry is None and bool(self._tasks) and self._tasks[0].done()

    def why_not_ready(self) -> str | None:
        """Why no session can be opened now; None if one can."""
        if self._is_draining:
            return "the server is shutting down"
        if self._has_failed_to_load:
            return "the model failed to load (see the server's log)"
        if self.registry is None:
            return "the model is not loaded yet"
        return next(filter(None, map(self._why_not_working, self._devices.all)), None)

    def ready(self) -> Sessions:
        """All sessions. Raises DeviceError while none can be opened, CapacityError while the server stops."""
        why_not = self.why_not_ready()
        if self._is_draining:
            raise CapacityError(f"{why_not}: reconnect, or use another server")
        if why_not is not None or self.registry is None:
            advice = "use another server" if self._has_failed_to_load else "try again soon"
            raise DeviceError(f"{why_not}: {advice}")
        return self.registry


def _speech(app: App, settings: Settings, gate: Gate, metrics: Metrics) -> SpeechEndpoint | None:
    """None without a language model. Raises ConfigError."""
    if settings.speech_lm_url is None:
        return None
    spec = SpeechLMSpec(settings.speech_lm_url, settings.speech_lm_api)
    if settings.speech_lm_template is not None:
        template = Path(settings.speech_lm_template)
        try:
            text = template.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise ConfigError(
                f"speech_lm_template {str(template)!r} cannot be read ({reason_of(error)}): specify a text file"
            ) from None
        if unfilled := [name for name in ("{codes}", "{reference_text}") if name in text]:
            raise ConfigError(
                f"speech_lm_template {str(template)!r} has {unfilled[0]}, which the server cannot fill: write the"
                " reference itself into the template"
            )
        spec = replace(spec, template=text, is_json=template.suffix == ".json")
    return SpeechEndpoint(spec, settings.speech_lm_key, app, gate, metrics)


def _gate(settings: Settings) -> Gate:
    """Returns the access control that the settings ask for. Raises ConfigError."""
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
    """None without TLS. Raises ConfigError."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return Certificate(Path(settings.tls_cert), Path(settings.tls_key), time.monotonic)


def _why_not_bound(settings: Settings, error: OSError) -> str:
    where = f"{settings.host}:{settings.port}"
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {settings.port} is in use ({where}): stop the program that uses it, or choose another --port"
            " (0: any free one)"
        )
    if error.errno == errno.EACCES:
        return f"this user may not listen on port {settings.port} ({where}): choose a --port of 1024 or above"
    return f"cannot listen on {where} ({reason_of(error)}): set --host to an address of this machine"
