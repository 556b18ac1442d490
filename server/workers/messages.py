"""What crosses the socket between the event loop and a worker: commands for sessions, events back, reports of steps."""

from enum import Enum, auto
from typing import Any, NamedTuple

import numpy as np

from neucodec_streaming.config import StreamConfig
from neucodec_streaming.engine.scheduler import Pool
from neucodec_streaming.protocol.messages import StreamFormat
from neucodec_streaming.server.model import Model
from neucodec_streaming.server.workers.formats import EngineFormats, Formats


class ParkedStream(NamedTuple):
    """A stream whose slots were given back: the engine's snapshot, the state of its formats, and how often the stream
    had been cleared at that worker."""

    snapshot: bytes
    formats: Formats | EngineFormats
    epoch: int


class SessionSpec(NamedTuple):
    """What a session is; `parked`: from where it goes on, with its voice; `voice`: in which a new one starts.
    `is_converted`: its payload is the engine's arrays as bytes, in place of `input` and `output`."""

    kind: str
    config: StreamConfig
    input: StreamFormat
    output: StreamFormat
    parked: ParkedStream | None = None
    voice: np.ndarray | None = None
    is_converted: bool = False


class CommandKind(Enum):
    """What can be asked of a worker for one session, with what data."""

    OPEN = auto()  # SessionSpec
    FEED = auto()  # bytes
    FLUSH = auto()
    CLEAR = auto()
    PRIME = auto()  # tokens of a voice
    PAUSE = auto()
    RESUME = auto()
    PARK = auto()
    CLOSE = auto()
    MEASURE = auto()  # pool and batch size; of no session
    ANSWER = auto()  # with HANDLED, whether the session is there or not


class EventKind(Enum):
    """What a session is told, with what data."""

    OPENED = auto()  # the session has its slots
    OUTPUT = auto()  # bytes of its format, their epoch, how late they are in ms
    FINISHED = auto()  # epoch: all output of the oldest utterance that was flushed has been delivered
    ENDED = auto()  # StreamingError: the session is closed, this is why
    PARKED = auto()  # ParkedStream, and the session lives on until CLOSE; None: there is something to compute for it
    MEASURED = auto()  # seconds of such a step, None while sessions are open; for nobody
    HANDLED = auto()  # all commands before the ANSWER have been taken


WorkerCommand = tuple[int, CommandKind, Any]
"""Session number (its WorkerHandle gives it), what to do, data. A plain tuple, since a class would pickle slowly."""


WorkerEvent = tuple[int, EventKind, Any]
"""For the session with that number."""


class Loaded(NamedTuple):
    """What is served, and the process of each worker."""

    model: Model
    pids: list[int]


class TimedStep(NamedTuple):
    """A batch was stepped, in so many seconds."""

    pool: Pool
    seconds: float


class WorkerReport(NamedTuple):
    """What sessions are told, in order, and the steps since the last report."""

    events: list[WorkerEvent]
    steps: list[TimedStep]
