"""Wire formats in a process of their own, between the event loop and a worker that drives a GPU.

A process that drives a GPU must prepare the next step before the present one ends, so conversion and resampling are
moved out of it: payload crosses its socket as the engine's own arrays. On a CPU the step itself fills a core, and the
worker converts its own payload.

    event loop <- sockets -> converter (formats) <- sockets -> worker (engine, device)
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from neucodec_streaming.config import OUTPUT_RATE
from neucodec_streaming.errors import DeviceError, StreamingError
from neucodec_streaming.server.workers.formats import EngineFormats, Formats, engine_types
from neucodec_streaming.server.workers.ipc import Unpacker, packed
from neucodec_streaming.server.workers.messages import (
    CommandKind,
    EventKind,
    Loaded,
    SessionSpec,
    TimedStep,
    WorkerCommand,
    WorkerEvent,
    WorkerReport,
)

_log = logging.getLogger(__name__)


@dataclass
class ConvertedSession:
    """A session's kind and formats, its number of clears, and the lateness of its latest output."""

    kind: str
    formats: Formats
    clears: int = 0
    behind_ms: float = 0.0


class Converter:
    """All sessions of a worker. No I/O: accepts messages of either side and returns those for both sides."""

    def __init__(self) -> None:
        self.output_rate = OUTPUT_RATE
        """Of the model, once it is loaded."""
        self._sessions: dict[int, ConvertedSession] = {}
        self._commands: list[WorkerCommand] = []
        self._events: list[WorkerEvent] = []

    def take(self) -> tuple[list[WorkerCommand], list[WorkerEvent]]:
        """Messages for the worker and the event loop."""
        found = self._commands, self._events
        self._commands, self._events = [], []
        return found

    def command(self, number: int, kind: CommandKind, data: Any) -> None:
        """Accepts a command of the event loop."""
        if kind is CommandKind.OPEN:
            data = self._open(number, data)
        elif kind is CommandKind.CLOSE:
            self._sessions.pop(number, None)
        elif (session := self._sessions.get(number)) is not None:
            try:
                data = self._converted_input(session, number, kind, data)
            except StreamingError as error:
                self._end(number, error)
                return
        self._commands.append((number, kind, data))

    def _open(self, number: int, spec: SessionSpec) -> SessionSpec:
        parked = spec.parked
        formats = Formats(spec.input, spec.output, self.output_rate) if parked is None else parked.formats
        assert isinstance(formats, Formats), "parked here"
        self._sessions[number] = ConvertedSession(spec.kind, formats)
        if parked is not None:
            parked = parked._replace(formats=EngineFormats(spec.kind))
        return spec._replace(parked=parked, is_converted=True)

    def _converted_input(self, session: ConvertedSession, number: int, kind: CommandKind, data: Any) -> Any:
        if kind is CommandKind.FEED:
            return session.formats.read(data).tobytes()
        if kind is CommandKind.FLUSH and (rest := session.formats.read_rest()) is not None:
            self._commands.append((number, CommandKind.FEED, rest.tobytes()))
        elif kind is CommandKind.CLEAR:
            session.formats.clear()
            session.clears += 1
        return data

    def event(self, number: int, kind: EventKind, data: Any) -> None:
        """Accepts an event of the worker."""
        session = self._sessions.get(number)
        if session is None:
            if kind in (EventKind.HANDLED, EventKind.MEASURED):  # for open and unknown sessions
                self._events.append((number, kind, data))
            return
        if kind is EventKind.ENDED:
            del self._sessions[number]
        elif kind is EventKind.PARKED and data is not None:
            data = data._replace(formats=session.formats)
        elif kind in (EventKind.OUTPUT, EventKind.FINISHED):
            self._output(session, number, kind, data)
            return
        self._events.append((number, kind, data))

    def _output(self, session: ConvertedSession, number: int, kind: EventKind, data: Any) -> None:
        payload, epoch, behind_ms = (b"", data, session.behind_ms) if kind is EventKind.FINISHED else data
        if epoch == session.clears:  # else the formats have been reset and the output is stale
            session.behind_ms = behind_ms
            try:
                if kind is EventKind.FINISHED:
                    payload = session.formats.written_rest()
                else:
                    payload = session.formats.written(np.frombuffer(payload, engine_types(session.kind)[1]))
            except StreamingError:
                _log.exception("the model produced invalid output")
                self._end(number, DeviceError("the model produced invalid output: reconnect"))
                return
            if payload:
                self._events.append((number, EventKind.OUTPUT, (payload, epoch, behind_ms)))
        if kind is EventKind.FINISHED:
            self._events.append((number, kind, data))

    def _end(self, number: int, error: StreamingError) -> None:
        """Closes the session with an error."""
        del self._sessions[number]
        self._commands.append((number, CommandKind.CLOSE, None))
        self._events.append((number, EventKind.ENDED, error))


def converter_before(outer: socket.socket) -> socket.socket:
    """Forks a process that converts between `outer` and the returned socket of the worker. It ends with either socket.

    Call it before threads or a device exist.
    """
    import uvloop

    inner, ours = socket.socketpair()
    if os.fork():
        outer.close()
        inner.close()
        return ours
    try:
        ours.close()
        uvloop.run(relay(outer, inner))
    finally:
        os._exit(0)


async def relay(outer: socket.socket, inner: socket.socket) -> None:
    """Converts between the event loop's end and the worker's until both have closed."""
    converter, loop = Converter(), asyncio.get_running_loop()

    def hand_on(steps: list[TimedStep]) -> None:
        commands, events = converter.take()
        if commands:
            worker.send(commands)
        if events or steps:
            event_loop.send(WorkerReport(events, steps))

    def take_commands(commands: list[WorkerCommand]) -> None:
        for command in commands:
            converter.command(*command)
        hand_on([])

    def take_message(message: Any) -> None:
        if isinstance(message, WorkerReport):
            for event in message.events:
                converter.event(*event)
            hand_on(message.steps)
            return
        if isinstance(message, Loaded):
            converter.output_rate = message.model.output_rate
        event_loop.send(message)

    event_loop = RelayEnd(take_commands, lambda: worker.close())
    worker = RelayEnd(take_message, event_loop.close)
    for end, its in ((event_loop, outer), (worker, inner)):
        its.setblocking(False)
        await loop.connect_accepted_socket(lambda end=end: end, its)  # type: ignore[misc]
    await asyncio.gather(event_loop.closed.wait(), worker.closed.wait())


class RelayEnd(asyncio.Protocol):
    """One of a converter's two sockets. The sessions' quotas bound its write buffer."""

    def __init__(self, take: Callable[[Any], None], lost: Callable[[], None]) -> None:
        self._take, self._lost = take, lost
        self._unpacker = Unpacker()
        self._transport: asyncio.WriteTransport
        self.closed = asyncio.Event()

    def send(self, message: object) -> None:
        self._transport.write(packed(message))

    def close(self) -> None:
        """Closes after the sent messages."""
        self._transport.close()

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        for message in self._unpacker.feed(data):
            self._take(message)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set()
        self._lost()
