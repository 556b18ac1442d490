"""Workers on the side of the event loop: a WorkerHandle for each, in their own processes or as threads.

Separate processes share no interpreter lock with the event loop, so network traffic does not delay steps, nor steps the
loop. Sessions bound the data written to a worker: each may have QUOTA commands in flight.
"""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from neucodec_streaming.engine.scheduler import Pool
from neucodec_streaming.errors import DeviceError
from neucodec_streaming.server.model import Model, worker_count
from neucodec_streaming.server.settings.fields import Settings
from neucodec_streaming.server.workers.ipc import Unpacker, packed
from neucodec_streaming.server.workers.messages import (
    CommandKind,
    EventKind,
    Loaded,
    SessionSpec,
    TimedStep,
    WorkerCommand,
    WorkerReport,
)
from neucodec_streaming.server.workers.worker import EngineLoader, work

QUOTA = 64
"""Limit of a session's commands in flight."""
_ANSWER_EVERY = QUOTA // 2
_CLOSE, _HANDLED = CommandKind.CLOSE, EventKind.HANDLED
_NOBODY = 0
"""A session number that is never used: its answers show that the worker is alive."""

Deliver = Callable[[EventKind, Any], None]
"""Accepts a worker's event for one session."""

_log = logging.getLogger(__name__)


class WorkerLink:
    """One session at a worker."""

    def __init__(self, device: "WorkerHandle", number: int) -> None:
        self.under_way = 0
        self._device = device
        self._number = number
        self._submitted = 0

    @property
    def has_quota(self) -> bool:
        """Whether more commands may be submitted; HANDLED arrives when this turns true again."""
        return self.under_way < QUOTA

    def submit(self, verb: CommandKind, data: Any = None) -> None:
        """Submits a command; `has_quota` limits FEED, FLUSH and CLEAR."""
        self._device.submit(self._number, verb, data)
        self._submitted += 1
        self.under_way += 1
        if self._submitted % _ANSWER_EVERY == 0:
            self._device.submit(self._number, CommandKind.ANSWER)


class WorkerHandle(asyncio.Protocol):
    """One worker at the other end of a socket.

    `on_step` gets every step, `on_lost` an unexpected end.
    """

    def __init__(self, on_step: Callable[[TimedStep], None], on_lost: Callable[[], None]) -> None:
        self._on_step = on_step
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport
        self._unpacker = Unpacker()
        self._outbox: list[WorkerCommand] = []
        self._links: dict[int, tuple[WorkerLink, Deliver]] = {}
        self._opened = 0
        self._asked_s: float | None = None
        self._measured: asyncio.Future[float | None] = self._loop.create_future()
        self.alive = False
        """Whether the worker is alive."""
        self.loaded: asyncio.Future[Loaded] = self._loop.create_future()

    def open(self, order: SessionSpec, deliver: Deliver) -> WorkerLink:
        """Opens a session. `deliver` gets its events, in the loop, until CLOSE is submitted."""
        self._opened += 1
        link = WorkerLink(self, self._opened)
        self._links[self._opened] = link, deliver
        link.submit(CommandKind.OPEN, order)
        return link

    def submit(self, number: int, verb: CommandKind, data: Any = None) -> None:
        """Sends a command of a session; for WorkerLink."""
        if not self._outbox:
            self._loop.call_soon(self._hand_over)  # one write for all commands of this turn of the loop
        self._outbox.append((number, verb, data))
        if verb is _CLOSE:
            del self._links[number]

    def stuck_for_s(self) -> float:
        """How long the worker has owed an answer; requests one if it owes none."""
        if self._asked_s is None:
            self._asked_s = self._loop.time()
            self.submit(_NOBODY, CommandKind.ANSWER)
        return self._loop.time() - self._asked_s

    async def measure(self, pool: Pool, size: int) -> float | None:
        """Measures a step at that batch size, in seconds; None while sessions are open or after the worker's end."""
        if not self.alive:
            return None
        measured = self._measured = self._loop.create_future()
        self.submit(_NOBODY, CommandKind.MEASURE, (pool, size))
        return await measured

    def close(self) -> None:
        """Ends the worker after its present step."""
        if self.alive:
            self.alive = False
            self._transport.close()

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self.alive = True

    def data_received(self, data: bytes) -> None:
        for message in self._unpacker.feed(data):
            if isinstance(message, WorkerReport):
                self._take(message)
            elif isinstance(message, Loaded):
                self.loaded.set_result(message)
            else:
                self.loaded.set_exception(message)

    def connection_lost(self, error: Exception | None) -> None:
        if self.alive:
            self.alive = False
            self._on_lost()
        self._settle_measured(None)
        if not self.loaded.done():
            self.loaded.set_exception(DeviceError("the worker stopped before the model was loaded"))
            self.loaded.exception()  # else asyncio logs it if nobody awaits it

    def _settle_measured(self, seconds: float | None) -> None:
        if not self._measured.done():
            self._measured.set_result(seconds)

    def _hand_over(self) -> None:
        outbox, self._outbox = self._outbox, []
        if self.alive:
            self._transport.write(packed(outbox))

    def _take(self, report: WorkerReport) -> None:
        for step in report.steps:
            self._on_step(step)
        for number, news, data in report.events:
            if (entry := self._links.get(number)) is not None:
                link, deliver = entry
                if news is _HANDLED:
                    link.under_way -= _ANSWER_EVERY
                deliver(news, data)
            elif news is EventKind.MEASURED:
                self._settle_measured(data)
            elif number == _NOBODY:
                self._asked_s = None


class WorkerPool:
    """All workers of a server, from `start` to `stop`. `apart`: in their own processes; `load` is then a function of a
    module.
    """

    def __init__(
        self, settings: Settings, load: EngineLoader, *, apart: bool, on_step: Callable[[TimedStep], None]
    ) -> None:
        self._settings = settings
        self._load = load
        self._apart = apart
        self._on_step = on_step
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._is_loaded = False
        self.all: list[WorkerHandle] = []
        self.pids: list[int] = []
        """Ids of the worker processes, once the model is loaded."""
        self.lost = asyncio.Event()
        """Set when a worker with possible sessions has ended."""

    async def start(self) -> None:
        """Starts loading; `loaded` waits for the model."""
        pairs = [socket.socketpair() for _ in range(worker_count(self._settings))]
        theirs = [pair[1] for pair in pairs]
        loop = asyncio.get_running_loop()
        for ours, _ in pairs:
            ours.setblocking(False)
            _, device = await loop.connect_accepted_socket(lambda: WorkerHandle(self._on_step, self._lose), ours)
            self.all.append(device)
        if self._apart:
            self._process = _spawned(theirs, self._settings, self._load)
        else:
            here = partial(work, theirs, self._settings, self._load, forks=False)
            self._thread = threading.Thread(target=here, name="workers", daemon=True)
            self._thread.start()

    async def loaded(self) -> Model:
        """The served model, once it is loaded and warm. Raises ModelError or another error of loading."""
        model, pids = await asyncio.shield(self.all[0].loaded)
        self.all = self.all[: len(pids)]
        self.pids = list(dict.fromkeys(pids)) if self._apart else []
        self._is_loaded = True
        self._lose()
        return model

    async def stop(self, timeout_s: float) -> None:
        """Ends the workers after their present steps; waits at most `timeout_s`, and not for a loading one."""
        for device in self.all:
            device.close()
        await asyncio.to_thread(self._join, timeout_s if self._is_loaded else 0.0)

    def _lose(self) -> None:
        if self._is_loaded and not self.lost.is_set() and not all(device.alive for device in self.all):
            code = None if self._process is None else self._process.poll()
            _log.error("a worker has stopped%s", "" if code is None else f" (exit code of its process: {code})")
            self.lost.set()

    def _join(self, timeout_s: float) -> None:
        level = logging.ERROR if self._is_loaded else logging.DEBUG
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                _log.log(level, "the workers did not stop within %.0f s", timeout_s)
        if self._process is not None:
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                _log.log(level, "the workers did not stop within %.0f s: killing them", timeout_s)
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()


def _spawned(sockets: list[socket.socket], settings: Settings, load: EngineLoader) -> subprocess.Popen[bytes]:
    """Starts the first worker process with its instructions. It has its own process group: signals from a terminal do
    not reach it, since workers end with their sockets.
    """
    orders = packed((settings, load))
    numbers = [one.fileno() for one in sockets]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "neucodec_streaming.server.workers", *map(str, numbers)],
        stdin=subprocess.PIPE,
        pass_fds=numbers,
        process_group=0,
    )
    assert process.stdin is not None
    with process.stdin:
        process.stdin.write(orders)
    for one in sockets:
        one.close()
    return process
