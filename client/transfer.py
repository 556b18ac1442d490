"""Runs a recording, token list or live source through one session, with statistics; used by every command.

A sending task and the receiving loop run concurrently; a failure of one ends the other. `realtime` sends each packet at
the moment when a microphone would have it: at the end of its duration.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from neucodec_streaming.client.events import Audio, Resumed, Tokens, units_of
from neucodec_streaming.client.latency import ResponseTimes
from neucodec_streaming.client.session import LiveSession
from neucodec_streaming.config import FRAME_MS
from neucodec_streaming.errors import StreamingError
from neucodec_streaming.protocol.messages import Ready

BITS_PER_TOKEN = 16
Source = Iterable[np.ndarray] | AsyncIterable[np.ndarray]


@dataclass
class TransferReport:
    """Progress of a session; positions in units of the stream, times in seconds since its start.

    `responses` describes the server only if input is sent at its own pace.
    """

    ready: Ready = field(repr=False)
    input_units: int = 0
    output_units: int = 0
    elapsed_s: float = 0.0
    first_output_s: float | None = None
    resumed: list[Resumed] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.responses = ResponseTimes(self.ready)

    @property
    def input_seconds(self) -> float:
        """Seconds of sent input."""
        return self.input_units / self.ready.input.rate

    @property
    def output_seconds(self) -> float:
        """Seconds of received output."""
        return self.output_units / self.ready.output.rate

    @property
    def tokens(self) -> int:
        """Tokens sent or received, or in a round trip passed between encoder and decoder."""
        if self.ready.output.kind == "tokens":
            return self.output_units
        return self.input_units if self.ready.input.kind == "tokens" else self.output_units // self.ready.output.hop

    @property
    def bits_per_second(self) -> float:
        """Rate of the tokens."""
        seconds = self.tokens * FRAME_MS / 1000
        return self.tokens * BITS_PER_TOKEN / seconds if seconds else 0.0

    @property
    def real_time_factor(self) -> float:
        """Time taken for a second of audio; below 1 is faster than real time."""
        return self.elapsed_s / self.input_seconds if self.input_units else 0.0

    def as_dict(self) -> dict[str, Any]:
        """All values in JSON types."""
        return {
            "model": self.ready.model,
            "profile": self.ready.profile,
            "latency_ms": self.ready.latency_ms,
            "input": asdict(self.ready.input),
            "output": asdict(self.ready.output),
            "input_seconds": round(self.input_seconds, 3),
            "output_seconds": round(self.output_seconds, 3),
            "tokens": self.tokens,
            "bits_per_second": round(self.bits_per_second),
            "elapsed_seconds": round(self.elapsed_s, 3),
            "real_time_factor": round(self.real_time_factor, 4),
            "resumed": [
                {"how": resumed.how, "gap": resumed.gap, "dropped_seconds": resumed.dropped_seconds}
                for resumed in self.resumed
            ],
            "first_output_ms": None if self.first_output_s is None else round(self.first_output_s * 1000, 1),
        }


async def transfer(
    connection: LiveSession,
    source: Source,
    on_output: Callable[[np.ndarray], None],
    *,
    realtime: bool = False,
    on_progress: Callable[[TransferReport], None] = lambda report: None,
) -> TransferReport:
    """Sends all of `source`, ends the session and passes every output (samples or tokens) to `on_output`.

    Raises the error of either side.
    """
    report = TransferReport(connection.ready)
    loop = asyncio.get_running_loop()
    start = loop.time()

    async def send() -> None:
        async for packet in packets_of(source):
            if realtime:
                due = start + (report.input_units + packet.size) / connection.ready.input.rate
                await asyncio.sleep(max(0.0, due - loop.time()))
            await connection.send(packet)
            report.input_units += packet.size  # positions restart in a new session
            report.responses.sent(connection.input_position, loop.time())
        await connection.end()

    on_progress(report)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send(), name="sender")
            async for event in connection:
                now_s = loop.time()
                report.elapsed_s = now_s - start
                if isinstance(event, Resumed):
                    report.resumed.append(event)
                elif isinstance(event, Audio | Tokens):
                    units = units_of(event)
                    report.output_units += units.size
                    report.responses.received(connection.output_position, now_s)
                    if report.first_output_s is None:
                        report.first_output_s = report.elapsed_s
                    on_output(units)
                on_progress(report)
    except BaseExceptionGroup as group:
        raise cause_of(group) from None
    return report


def cause_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error to report of several: ours first, since it names the remedy."""
    error: BaseException = group.subgroup(StreamingError) or group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def packets_of(source: Source) -> AsyncIterator[np.ndarray]:
    """The packets of either kind of source."""
    if isinstance(source, AsyncIterable):
        async for packet in source:
            yield packet
    else:
        for packet in source:
            yield packet
