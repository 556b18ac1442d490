"""What a step of the engine gives for its sessions, in order. No torch."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from neucodec_streaming.errors import StreamingError


class Output(NamedTuple):
    """New output of a session: tokens uint16 (n,) or audio float32 (480 n,); and how late it is."""

    session: int
    epoch: int
    data: np.ndarray
    behind_ms: float


@dataclass(frozen=True)
class FlushFinished:
    """All output of the oldest utterance that was flushed has been delivered."""

    session: int
    epoch: int


@dataclass(frozen=True)
class Failed:
    """The session is closed, its slots are free: it could not be stepped."""

    session: int
    error: StreamingError


EngineResult = Output | FlushFinished | Failed
