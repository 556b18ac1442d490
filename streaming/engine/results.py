"""Results of an engine's step for its sessions, in order. No torch."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from neucodec_streaming.errors import StreamingError


class Output(NamedTuple):
    """New output of a session: tokens uint16 (n,) or audio float32, and its lateness."""

    session: int
    epoch: int
    data: np.ndarray
    behind_ms: float


@dataclass(frozen=True)
class FlushFinished:
    """All output of the oldest flushed utterance has been delivered."""

    session: int
    epoch: int


@dataclass(frozen=True)
class Failed:
    """The session could not be stepped: it is closed, and its slots are free."""

    session: int
    error: StreamingError


EngineResult = Output | FlushFinished | Failed
