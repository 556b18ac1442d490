"""Messages between the event loop and a worker: commands for sessions, events back, reports of steps."""

from enum import Enum, auto
from typing import Any, NamedTuple

import numpy as np

from neucodec_streaming.config import StreamConfig
from neucodec_streaming.protocol.messages import StreamFormat
from neucodec_streaming.server.model import Model
from neucodec_streaming.server.workers.formats import EngineFormats, Formats


class ParkedStream(NamedTuple):
    """A stream whose slots were released: the engine's snapshot, the state of its formats, and its clears at that
    worker.
    """

    snapshot: bytes
    formats: Formats | EngineFormats
    epoch: int


class SessionSpec(NamedTuple):
    """Description of a session. `parked`: its state and voice to continue from. `voice`: of a new one. `is_converted`:
    its payload is the engine's arrays as bytes instead of `input` and `output`.
    """

    kind: str
    config: StreamConfig
    input: StreamFormat
    output: StreamFormat
    parked: ParkedStream | None = None
    voice: np.ndarray | None = None
    is_converted: bool = False


class CommandKind(Enum):
    """Commands for a session, with their data."""

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
    ANSWER = auto()  # answered by HANDLED, also for unknown sessions


class EventKind(Enum):
    """Events of a session, with their data."""

    OPENED = auto()  # the session has its slots
    OUTPUT = auto()  # bytes in its format, their epoch, lateness in ms
    FINISHED = auto()  # epoch: all output of the oldest flushed utterance was delivered
    ENDED = auto()  # StreamingError: why the session was closed
    PARKED = auto()  # ParkedStream: the session waits for CLOSE; None: it has something to compute
    MEASURED = auto()  # seconds of such a step, None while sessions are open; of no session
    HANDLED = auto()  # all commands before the ANSWER were handled


WorkerCommand = tuple[int, CommandKind, Any]
"""Session number (from its WorkerHandle), command, data. A plain tuple, since pickling a class is slow."""


WorkerEvent = tuple[int, EventKind, Any]
"""An event of the session with that number."""


class Loaded(NamedTuple):
    """The served model, and each worker's process."""

    model: Model
    pids: list[int]


TimedStep = tuple[str, str, float]
"""A batch of that part and profile was stepped in that many seconds."""


class WorkerReport(NamedTuple):
    """Events of sessions, in order, and the steps since the last report."""

    events: list[WorkerEvent]
    steps: list[TimedStep]
