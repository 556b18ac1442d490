"""Response time of output after its input, as a client sees it: network, queues and computing, without the algorithm.

The output of a chunk can be sent once the last input that it depends on (chunk and lookahead) has arrived. The times at
which input was sent and output arrived give the difference, for each utterance from its start.
"""

from collections import deque
from typing import Any

import numpy as np

from neucodec_streaming.config import INPUT_RATE, StreamConfig, input_needed
from neucodec_streaming.protocol.messages import Ready

RECENT = 20
"""Number of values in the median shown while a session runs."""


def config_of(ready: Ready) -> StreamConfig:
    """Chunk and lookahead of a session."""
    return StreamConfig(ready.chunk_frames, ready.lookahead_frames)


def units_needed(ready: Ready, output_units: int) -> int:
    """Input units of an utterance that the server needs before it can send `output_units` of its output."""
    config = config_of(ready)
    frames = -(-output_units // ready.output.hop)
    if ready.input.kind == "tokens":
        return input_needed("decode", config, frames)
    samples = input_needed("encode" if ready.output.kind == "tokens" else "roundtrip", config, frames)
    return -(-samples * ready.input.rate // INPUT_RATE)


class ResponseTimes:
    """sent(position, now_s) for input, received(position, now_s) for output; `milliseconds` collects the results.

    Positions are those after the packet. Output caused by a flush depends on no further input and is not counted.
    """

    def __init__(self, ready: Ready) -> None:
        self.milliseconds: list[float] = []
        self._ready = ready
        self._sent: deque[tuple[int, float]] = deque()

    def sent(self, position: int, now_s: float) -> None:
        """Input up to `position` was sent; a lower position than before belongs to a new session."""
        if self._sent and position < self._sent[-1][0]:
            self._sent.clear()
        self._sent.append((position, now_s))

    def received(self, position: int, now_s: float) -> None:
        """Output up to `position` has arrived."""
        needed = units_needed(self._ready, position)
        while self._sent and self._sent[0][0] < needed:
            self._sent.popleft()
        if self._sent:
            self.milliseconds.append((now_s - self._sent[0][1]) * 1000)

    @property
    def recent_ms(self) -> float:
        """The median of the last few values; 0 if there are none."""
        return float(np.median(self.milliseconds[-RECENT:])) if self.milliseconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """The distribution in JSON types."""
        if not self.milliseconds:
            return {"response_ms": None}
        p50, p99, most = np.percentile(self.milliseconds, [50, 99, 100]).round(1).tolist()
        return {"response_ms": {"p50": p50, "p99": p99, "max": most}}
