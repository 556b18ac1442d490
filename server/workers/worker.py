"""A worker: steps one engine. Commands arrive on a socket; the results of a step are returned in one message.

The other end is a WorkerHandle of the event loop (handle.py), in this process or another. Each message to a worker is a
list of commands, each message from it a WorkerReport; the first message of the first worker is Loaded, or an error. A
session's failure is reported to that session, and the worker continues until the other end is closed. If the device
fails permanently, the process exits with code 1, so that its supervisor restarts it.

Workers are threads, or processes forked once the model is loaded and warm, which share its memory but no interpreter.
"""

import gc
import logging
import os
import select
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neucodec_streaming.config import StreamConfig
from neucodec_streaming.engine.engine import Engine, pools_of
from neucodec_streaming.engine.results import EngineResult, Failed, FlushFinished, Output
from neucodec_streaming.errors import DeviceError, LostDeviceError, StreamingError
from neucodec_streaming.server.model import Model
from neucodec_streaming.server.settings.fields import Settings
from neucodec_streaming.server.workers.formats import EngineFormats, Formats
from neucodec_streaming.server.workers.ipc import Unpacker, packed
from neucodec_streaming.server.workers.messages import (
    CommandKind,
    EventKind,
    Loaded,
    ParkedStream,
    SessionSpec,
    TimedStep,
    WorkerCommand,
    WorkerEvent,
    WorkerReport,
)

READ_BYTES = 1 << 18
SEND_BUFFER_BYTES = 1 << 22
"""Limited by the system."""
_FEED, _OUTPUT = CommandKind.FEED, EventKind.OUTPUT
"""Looked up once: a member of an enum takes as long as a call."""
MAX_UNSENT_REPORTS = 16
"""Beyond it the next step waits for the reader."""

EngineLoader = Callable[[Settings], tuple[list[Engine], Model]]
"""Creates an engine for each worker, and the description of what they serve."""

_log = logging.getLogger(__name__)


@dataclass
class WorkerSession:
    """A session: its numbers at the WorkerHandle and at the engine, the lateness of its latest output, and its clears
    here.
    """

    number: int
    engine_id: int
    formats: Formats | EngineFormats
    behind_ms: float = 0.0
    clears: int = 0


class Worker:
    """Steps `engine` for the other end of `socket`. `profiles`: names of the configurations, for its reports."""

    def __init__(
        self, engine: Engine, socket: socket.socket, output_rate: int, profiles: Mapping[StreamConfig, str]
    ) -> None:
        self._output_rate = output_rate
        self._profiles = profiles
        self._engine = engine
        self._socket = socket
        self._unpacker = Unpacker()
        self._buffer = bytearray(READ_BYTES)
        self._unsent: deque[memoryview] = deque()
        self._seats: dict[int, WorkerSession] = {}  # by their number
        self._seat_of: dict[int, WorkerSession] = {}  # by the engine's number
        self._events: list[WorkerEvent] = []
        self._steps: list[TimedStep] = []
        self._stepped_s = 0.0

    def run(self) -> None:
        """Runs until the other end is closed. Raises LostDeviceError: the process must end and be restarted."""
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        with self._socket, selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            try:
                while (commands := self._wait(selector)) is not None:
                    for command in commands:
                        self.command(*command)
                    self.step()
                    if (report := self.take()) is not None:
                        self._unsent.append(memoryview(packed(report)))
                        self._send(selector)
            except OSError:
                _log.debug("the event loop has stopped: dropping the results", exc_info=True)

    def close(self) -> None:
        """Closes this process's copy of the socket of a worker that runs elsewhere."""
        self._socket.close()

    def _wait(self, selector: selectors.BaseSelector) -> list[WorkerCommand] | None:
        """Commands since the last call, at once or when the engine has something to do; None at the end."""
        wake_s = self._engine.wake_s()
        while True:
            wait_s = None if wake_s is None else max(0.0, wake_s - time.monotonic())
            ready = selector.select(wait_s)
            if not ready:
                return []
            events = ready[0][1]
            if events & selectors.EVENT_WRITE:
                self._send(selector)
            if events & selectors.EVENT_READ:
                size = self._socket.recv_into(self._buffer)
                if not size:
                    return None
                with memoryview(self._buffer) as view:
                    messages = self._unpacker.feed(view[:size])
                if messages:
                    return [command for commands in messages for command in commands]
            elif wait_s == 0:
                return []

    def _send(self, selector: selectors.BaseSelector) -> None:
        """Writes as much as the socket takes: the device only waits for a reader that is far behind."""
        while self._unsent:
            try:
                size = self._socket.send(self._unsent[0])
            except BlockingIOError:
                if len(self._unsent) <= MAX_UNSENT_REPORTS:
                    break
                select.select((), (self._socket,), ())
                continue
            rest = self._unsent.popleft()[size:]
            if rest:
                self._unsent.appendleft(rest)
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        if selector.get_key(self._socket).events != wanted:
            selector.modify(self._socket, wanted)

    def command(self, number: int, verb: CommandKind, data: Any) -> None:
        """Handles a command of the event loop. Raises LostDeviceError."""
        try:
            seat = self._seats.get(number)
            if verb is _FEED:
                if seat is not None:
                    self._engine.feed(seat.engine_id, seat.formats.read(data), time.monotonic())
            elif verb is CommandKind.ANSWER:
                self._tell(number, EventKind.HANDLED)
            elif verb is CommandKind.MEASURE:
                self._tell(number, EventKind.MEASURED, self._engine.measure(data[0], data[1], time.perf_counter))
            elif verb is CommandKind.OPEN:
                self._open(number, data)
            elif seat is not None:
                self._command(seat, verb, data)
        except LostDeviceError:
            raise
        except StreamingError as error:
            self._end(number, error)
        except Exception:
            _log.exception("%s failed", verb.name)
            self._engine.check_device()
            self._end(number, DeviceError("the device failed: reconnect"))

    def _open(self, number: int, order: SessionSpec) -> None:
        pools, parked = pools_of(order.kind, order.config), order.parked
        if parked is None:
            engine_id = self._engine.open(order.kind, pools)
            formats = self._formats(order)
            if order.voice is not None:
                self._engine.prime(engine_id, _voice(order.voice), time.monotonic())
        else:
            engine_id = self._engine.restore(order.kind, pools, parked.snapshot, time.monotonic())
            formats = parked.formats
        seat = WorkerSession(number, engine_id, formats)
        self._seats[number] = self._seat_of[engine_id] = seat
        self._tell(number, EventKind.OPENED)

    def _formats(self, order: SessionSpec) -> Formats | EngineFormats:
        if order.is_converted:
            return EngineFormats(order.kind)
        return Formats(order.input, order.output, self._output_rate)

    def _command(self, seat: WorkerSession, verb: CommandKind, data: Any) -> None:
        engine, session, now_s = self._engine, seat.engine_id, time.monotonic()
        match verb:
            case CommandKind.FLUSH:
                rest = seat.formats.read_rest()
                if rest is not None:
                    engine.feed(session, rest, now_s)
                engine.flush(session, now_s)
            case CommandKind.CLEAR:
                seat.formats.clear()
                seat.clears += 1
                engine.clear(session, now_s)
            case CommandKind.PRIME:
                engine.prime(session, _voice(data), now_s)
            case CommandKind.PAUSE:
                engine.pause(session)
            case CommandKind.RESUME:
                engine.resume(session, now_s)
            case CommandKind.PARK:
                stream = None
                if engine.is_idle(session):
                    stream = ParkedStream(engine.snapshot(session), seat.formats, seat.clears)
                self._tell(seat.number, EventKind.PARKED, stream)
            case CommandKind.CLOSE:
                self._forget(seat)
                engine.close(session)

    def step(self) -> None:
        """Lets the engine launch and deliver. Raises LostDeviceError."""
        engine = self._engine
        try:
            results = engine.step(time.monotonic())
            if engine.stepped is not None:
                end_s = time.monotonic()
                begin_s = max(engine.stepped.launched_s, self._stepped_s)  # the device computes one after another
                pool = engine.stepped.pool
                self._steps.append((pool.kind, self._profiles[pool.config], end_s - begin_s))
                self._stepped_s = end_s
            for result in results:
                self._translate(result)
        except LostDeviceError:
            raise
        except Exception:
            _log.exception("the engine failed")
            self._engine.check_device()
            for number in list(self._seats):
                self._end(number, DeviceError("the device failed: reconnect"))

    def _translate(self, result: EngineResult) -> None:
        seat = self._seat_of.get(result.session)
        if seat is None:
            return
        if isinstance(result, Failed):
            self._forget(seat)
            self._tell(seat.number, EventKind.ENDED, result.error)
            return
        try:
            data = seat.formats.written(result.data) if isinstance(result, Output) else seat.formats.written_rest()
        except StreamingError:
            _log.exception("the model produced invalid output")
            self._end(seat.number, DeviceError("the model produced invalid output: reconnect"))
            return
        if isinstance(result, Output):
            seat.behind_ms = result.behind_ms
        if data:
            self._tell(seat.number, _OUTPUT, (data, result.epoch, seat.behind_ms))
        if isinstance(result, FlushFinished):
            self._tell(seat.number, EventKind.FINISHED, result.epoch)

    def take(self) -> WorkerReport | None:
        """The events and steps since the last report, if there are events."""
        if not self._events:
            return None
        report = WorkerReport(self._events, self._steps)
        self._events, self._steps = [], []
        return report

    def _tell(self, number: int, news: EventKind, data: Any = None) -> None:
        self._events.append((number, news, data))

    def _end(self, number: int, error: StreamingError) -> None:
        """Closes the session, if it is open, and reports the reason."""
        seat = self._seats.get(number)
        if seat is not None:
            self._forget(seat)
            self._engine.close(seat.engine_id)
        self._tell(number, EventKind.ENDED, error)

    def _forget(self, seat: WorkerSession) -> None:
        del self._seats[seat.number], self._seat_of[seat.engine_id]


def _voice(tokens: np.ndarray) -> np.ndarray | None:
    """The voice in the engine's form; no tokens mean none."""
    return tokens if len(tokens) else None


def work(sockets: Sequence[socket.socket], settings: Settings, load: EngineLoader, *, forks: bool) -> None:
    """Loads the engines, reports them on the first socket, and runs a worker on each socket until the other ends are
    closed.

    Surplus sockets are closed. The first worker runs in this thread, the others in forked processes if it `forks`, else
    in threads.
    """
    workers, model = _loaded(sockets, settings, load)
    for unused in sockets[max(1, len(workers)) :]:
        unused.close()
    own = os.getpid()
    pids = [own] * len(workers)
    if forks:
        for number in reversed(range(1, len(workers))):
            pids[number] = _forked(workers)
    threads = [threading.Thread(target=worker.run, name="worker") for worker in workers[1:]]
    for thread in threads:
        thread.start()
    try:
        sockets[0].sendall(packed(Loaded(model, pids) if isinstance(model, Model) else model))
    except OSError:
        _log.debug("the event loop has stopped", exc_info=True)
    if workers:
        workers[0].run()
    sockets[0].close()
    for thread in threads:
        thread.join()
    for pid in pids:
        if pid != own:
            os.waitpid(pid, 0)


def _forked(workers: list[Worker]) -> int:
    """Forks a process for the last of the workers; each process drops the other's workers.

    Freed memory is given back: a page shared by two processes is copied when one of them writes to it.
    """
    from neucodec_streaming.kernels.memory import give_back_freed_memory

    pid = os.fork()
    worker = workers.pop()
    if pid:
        worker.close()
        del worker
        give_back_freed_memory()
        return pid
    try:
        while workers:
            workers.pop().close()
        give_back_freed_memory()
        thread = threading.Thread(target=worker.run, name="worker")
        thread.start()  # a new one: in this thread, torch would use threads that the fork lost
        thread.join()
    except Exception:
        _log.exception("a worker failed")
    finally:
        os._exit(0)


def _loaded(
    sockets: Sequence[socket.socket], settings: Settings, load: EngineLoader
) -> tuple[list[Worker], Model | StreamingError]:
    """The engines and what they serve; or none, and the error."""
    try:
        engines, model = load(settings)
    except StreamingError as error:
        return [], error
    except Exception as error:
        _log.exception("loading the model failed")
        return [], DeviceError(f"loading the model failed: {type(error).__name__}: {error}")
    gc.collect()
    gc.freeze()  # else collections stop everything to walk through torch and the model
    profiles = {config: name for name, config in model.profiles.items()}
    pairs = zip(engines, sockets, strict=False)
    return [Worker(engine, socket, model.output_rate, profiles) for engine, socket in pairs], model
