"""One WebSocket connection: messages from the socket to the device thread, its results back in order.

A reader, a writer, a keepalive and, when asked for, statistics; what goes out when is the ServerSession's business. Too
much input that waits stops the reading, too much output that waits pauses the session on the device, and a client that
takes nothing at all is disconnected.
"""

import asyncio
import logging
from contextlib import suppress

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from server.intake import Intake
from server.metrics import Metrics
from server.settings import Settings
from server.worker import DeviceThread, Failed, FlushFinished, Link, Opened, Payload, Verb
from server.worker import Event as DeviceEvent
from streaming.config import FRAME_MS, TOKENS_PER_SECOND, StreamConfig
from streaming.errors import DeviceError, MessageTooLarge, StreamingError
from streaming.protocol.messages import Clear, End, Flush, Ready, Stats
from streaming.protocol.query import SessionRequest
from streaming.protocol.session import ServerSession, State

STATS_INTERVAL_S = 1.0

_log = logging.getLogger(__name__)


class Connection:
    """Serves one session on `socket` until it is over: `run`."""

    def __init__(
        self,
        socket: ServerConnection,
        request: SessionRequest,
        ready: Ready,
        link: Link,
        device: DeviceThread,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self._socket = socket
        self._request = request
        self._name = ready.session
        self._logged = {"session": ready.session}
        self._session = ServerSession(ready)
        self._device = device
        self._settings = settings
        self._metrics = metrics
        self._link = link
        self._intake = Intake(ready.input, StreamConfig(ready.chunk_frames, ready.lookahead_frames))
        link.deliver = self._deliver
        window = ready.chunk_frames + ready.lookahead_frames
        self._most_owed_frames = max(int(settings.max_pending_seconds * TOKENS_PER_SECOND), 4 * window)
        self._changed = asyncio.Event()  # for the writer: something to send, or the end
        self._room = asyncio.Event()  # for the reader: something was sent or handled
        self._opened = asyncio.Event()
        self._paused = False
        self._reading = True
        self._behind_ms = 0.0

    async def run(self) -> None:
        """Opens the session on the device, serves it, and gives its slots back whatever happens."""
        self._device.submit(self._link, Verb.OPEN)
        try:
            await self._open()
            await self._serve()
        finally:
            self._device.submit(self._link, Verb.CLOSE)
            session = self._session
            outcome = session.failure.code if session.failure is not None else "ok"
            if session.failure is not None:
                self._metrics.errors.labels(outcome).inc()
            _log.info(
                "session %s closed: %s, %d in, %d out",
                self._name,
                outcome,
                session.input_position,
                session.output_position,
                extra=self._logged,
            )

    async def _open(self) -> None:
        try:
            async with asyncio.timeout(self._settings.slot_timeout_s):
                await self._opened.wait()
        except TimeoutError:
            self._session.fail(DeviceError("the device does not answer: try again later, or on another server"))

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as group:
            others = [
                group.create_task(self._read(), name=f"read {self._name}"),
                group.create_task(self._keep_alive(), name=f"keepalive {self._name}"),
                group.create_task(self._watch(), name=f"watch {self._name}"),
            ]
            if self._request.stats:
                others.append(group.create_task(self._report(), name=f"stats {self._name}"))
            try:
                await self._write()
            finally:
                for task in others:
                    task.cancel()

    async def _read(self) -> None:
        try:
            await self._accept_all()
            while True:  # nothing counts any more, but the peer's close is behind what it has sent
                await self._socket.recv()
        except ConnectionClosed:
            self._session.lose()
            self._changed.set()

    async def _accept_all(self) -> None:
        """Takes the client's messages until one is wrong; raises ConnectionClosed."""
        try:
            while True:
                if self._accept(await self._socket.recv()):
                    await self._wait_for_room()
        except ConnectionClosed:
            raise
        except StreamingError as error:
            self._session.fail(error)
        except Exception:
            _log.exception("session %s failed", self._name, extra=self._logged)
            self._session.fail(StreamingError("internal error: connect again"))
        self._changed.set()

    def _accept(self, data: bytes | str) -> bool:
        """Takes one message; whether it has made something wait, and not only packets of a window to come."""
        if len(data) > self._settings.max_message_bytes:
            limit = self._settings.max_message_bytes
            raise MessageTooLarge(f"message of {len(data)} bytes: the limit is {limit}, send smaller ones")
        command = self._session.receive(data)
        if isinstance(command, bytes):
            return self._feed(self._intake.put(command))
        if isinstance(command, (Flush, End)):
            self._feed(self._intake.end())
            self._device.submit(self._link, Verb.FLUSH)
        elif isinstance(command, Clear):
            self._intake.clear()
            self._device.submit(self._link, Verb.CLEAR)
            self._unpause()
        self._changed.set()
        return True

    def _feed(self, data: bytes) -> bool:
        if data:
            self._device.submit(self._link, Verb.FEED, data)
        return bool(data)

    async def _wait_for_room(self) -> None:
        """Back-pressure: nothing is read while too much waits."""
        while not self._has_room():
            self._reading = False
            self._room.clear()
            self._link.notify = True
            if not self._has_room():
                await self._room.wait()
        self._reading = True

    def _has_room(self) -> bool:
        session = self._session
        return session.failure is not None or (
            session.owed_frames <= self._most_owed_frames
            and session.queued_messages <= self._settings.max_queue_messages
            and self._link.has_quota
        )

    async def _write(self) -> None:
        """Sends until the session is over, then closes the socket with the session's code."""
        session, settings = self._session, self._settings
        try:
            while True:
                message = session.next_message()
                if message is None:
                    if session.state in (State.CLOSED, State.LOST):
                        break
                    self._changed.clear()
                    await self._changed.wait()
                    continue
                async with asyncio.timeout(settings.send_timeout_s):
                    await self._socket.send(message)
                self._room.set()
                if self._paused and self._queued_bytes() <= settings.max_queue_bytes // 2:
                    self._unpause()
            reason = session.failure.code if session.failure is not None else ""
            await self._socket.close(session.close_code, reason)
        except ConnectionClosed:
            session.lose()
        except TimeoutError:
            _log.warning(
                "session %s takes no output for %.0f s: disconnected",
                *(self._name, settings.send_timeout_s),
                extra=self._logged,
            )
            session.lose()
            self._socket.transport.abort()

    async def _watch(self) -> None:
        """Ends the session with its connection, also while nothing is read or written."""
        await self._socket.wait_closed()
        self._session.lose()
        self._changed.set()

    async def _keep_alive(self) -> None:
        """Pings, so that a connection that is half open ends; not while reading stands still, since pongs queue too."""
        while True:
            await asyncio.sleep(self._settings.ping_interval_s)
            if not self._reading:
                continue
            with suppress(ConnectionClosed):
                pong = await self._socket.ping()
                done, _ = await asyncio.wait([asyncio.ensure_future(pong)], timeout=self._settings.ping_timeout_s)
                if not done and self._reading:
                    _log.warning("session %s does not answer pings: disconnected", self._name, extra=self._logged)
                    self._socket.transport.abort()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(STATS_INTERVAL_S)
            session = self._session
            buffered_ms = float(session.owed_frames * FRAME_MS)
            session.report(
                Stats(buffered_ms, round(self._behind_ms, 3), session.input_position, session.output_position)
            )
            self._changed.set()

    def _deliver(self, event: DeviceEvent) -> None:
        """What the device thread has for this session; runs in the loop."""
        if isinstance(event, Payload):
            self._behind_ms = event.behind_ms
            self._metrics.behind.observe(event.behind_ms / 1000)
            self._session.output_ready(event.data, event.epoch)
            if not self._paused and self._queued_bytes() > self._settings.max_queue_bytes:
                self._paused = True
                self._device.submit(self._link, Verb.PAUSE)
        elif isinstance(event, FlushFinished):
            self._session.flush_finished(event.epoch)
        elif isinstance(event, Failed):
            self._session.fail(event.error)
            self._opened.set()
        elif isinstance(event, Opened):
            self._opened.set()
        self._changed.set()
        self._room.set()

    def _queued_bytes(self) -> int:
        return self._session.queued_units * self._session.output.unit_bytes

    def _unpause(self) -> None:
        if self._paused:
            self._paused = False
            self._device.submit(self._link, Verb.RESUME)
