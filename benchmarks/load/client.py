"""Client processes of `benchmarks.load`: each holds a few live sessions and sends on schedule.

The process exchanges JSON lines with its parent: it reads the plan, writes `opened`, reads the start time (of the
machine's monotonic clock) and writes the report. Packets are cut in advance, one loop sends those of all sessions, and
torch is never imported, so that the clients take little processor time from the server.
"""

import asyncio
import heapq
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from benchmarks.latency import needed_packets
from neucodec_streaming.config import FRAME_MS, TOKENS_PER_SECOND, StreamConfig
from neucodec_streaming.errors import StreamingError
from neucodec_streaming.protocol.client_session import ClientSession
from neucodec_streaming.protocol.messages import Done, End, Failure, encode_message, parse_server_message
from neucodec_streaming.protocol.query import session_request
from neucodec_streaming.protocol.states import State

PACKET_S = FRAME_MS / 1000
OPEN_S = 10.0
BEGIN_S = 180.0
"""Other processes open their sessions meanwhile."""
DRAIN_S = 20.0
"""Timeout for the output after the last packet."""
ROUNDING_S = 0.0005
"""Event loops round waits to milliseconds; this much more ensures that no packet leaves before it is due."""
UNBOUNDED_BYTES = 1 << 30
"""A write limit that no send reaches, so that a server that reads slowly delays only its own session."""
POUR_MESSAGE_FRAMES = TOKENS_PER_SECOND
POUR_S = 3600
"""Limit of a session's input."""

DONE, REFUSED, UNANSWERED, CUT_OFF = "done", "refused", "no answer", "cut off"
"""Outcomes other than the codes of failures and closes; a session that pours is cut off when the run ends."""


@dataclass(frozen=True)
class Job:
    """A session that sends the file `payload`; its first packet is due after `phase_s`."""

    number: int
    kind: str
    payload: str
    phase_s: float = 0.0


@dataclass(frozen=True)
class Plan:
    """The order for one process. Each session's output goes to a file in `outputs`, named by its number.

    With `pours` its sessions send as fast as the server accepts, up to an hour of input, and are cut off at the end.
    `since_s` delays its start.
    """

    url: str
    jobs: tuple[Job, ...]
    seconds: float
    outputs: str | None = None
    pours: bool = False
    since_s: float = 0.0
    module = "benchmarks.load.client"

    @property
    def sessions(self) -> int:
        return len(self.jobs)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> "Plan":
        body = json.loads(line)
        return cls(**{**body, "jobs": tuple(Job(**job) for job in body["jobs"])})


def chunks_due(kind: str, config: StreamConfig, packets: int) -> list[tuple[int, int]]:
    """Lists each chunk that `packets` complete as (frames of output up to its end, packets that it needs)."""
    first = config.chunk_frames - (0 if kind == "encode" else config.synthesis_lag_frames)
    ends = (frames for frames in itertools.count(first, config.chunk_frames) if frames > 0)
    needs = ((frames, needed_packets(kind, config, frames)) for frames in ends)
    return list(itertools.takewhile(lambda need: need[1] <= packets, needs))


class Live:
    """A session as its client sees it; `outcome` is None while it is open."""

    def __init__(self, job: Job, packets: list[bytes], keeps_output: bool, clock: Callable[[], float]) -> None:
        request = session_request(job.kind)
        self.job, self.packets = job, packets
        self.outcome: str | None = None
        self.session = ClientSession(request.input, request.output)
        self.output: list[bytes] | None = [] if keeps_output else None
        self._target, self._clock = request.target, clock
        self._socket: ClientConnection | None = None
        self._begin_s = self._first_sent_s = 0.0
        self._chunks: list[tuple[int, int]] = []
        self._first_ms: float | None = None
        self._late_ms: list[float] = []
        self._ended_s = 0.0

    async def open(self, url: str, write_limit: int) -> None:
        """Notes a failure in `outcome`."""
        try:
            async with asyncio.timeout(OPEN_S):
                self._socket = await connect(
                    url + self._target,
                    compression=None,
                    max_size=None,
                    write_limit=write_limit,
                    ping_interval=None,  # the deadlines here are enough
                    close_timeout=1.0,
                    proxy=None,
                )
                first = self.session.receive(parse_server_message(await self._socket.recv()))
        except InvalidStatus as error:
            status = error.response.status_code
            self.outcome = REFUSED if status == HTTPStatus.SERVICE_UNAVAILABLE else f"HTTP {status}"
        except ConnectionClosed as error:
            self.outcome = _close_of(error)
        except (OSError, TimeoutError, InvalidHandshake):
            self.outcome = UNANSWERED
        else:
            if isinstance(first, Failure):
                self.outcome = first.code

    def begin(self, begin_s: float) -> None:
        """Sets the start of the run; the session starts later by its phase."""
        self._begin_s = begin_s
        ready = self.session.ready
        if ready is not None:
            config = StreamConfig(ready.chunk_frames, ready.lookahead_frames)
            self._chunks = chunks_due(self.job.kind, config, len(self.packets))

    def due_s(self, number: int) -> float:
        """Returns when packet `number` is due; the one after the last is the session's `end`."""
        return self._begin_s + self.job.phase_s + number * PACKET_S

    def turns(self) -> Iterator[tuple[float, int, int]]:
        """Yields (due time, session, packet) for all that it sends, in order."""
        return ((self.due_s(number), self.job.number, number) for number in range(len(self.packets) + 1))

    async def send(self, number: int) -> bool:
        """Sends packet `number`, or `end`; returns False if the session is over."""
        if self.outcome is not None or self.session.state is not State.STREAMING:
            return False
        assert self._socket is not None
        if number == 0:
            self._first_sent_s = self._clock()
        session = self.session
        ends = number == len(self.packets)
        with suppress(ConnectionClosed):  # `receive` notes it
            item = session.send(End()) if ends else session.send_payload(self.packets[number])
            await self._socket.send(encode_message(item))
        return True

    async def pour(self) -> None:
        """Repeats the packets for up to an hour of input, as fast as the server accepts it."""
        assert self._socket is not None
        size = POUR_MESSAGE_FRAMES
        messages = [b"".join(self.packets[first : first + size]) for first in range(0, len(self.packets), size)]
        frames, self._first_sent_s = 0, self._clock()
        with suppress(ConnectionClosed):
            for message in itertools.cycle(messages):
                if frames >= POUR_S * TOKENS_PER_SECOND or self.outcome is not None:
                    break
                await self._socket.send(self.session.send_payload(message))
                frames = self.session.input_position // self.session.input.hop
            if self.session.state is State.STREAMING:
                await self._socket.send(encode_message(self.session.send(End())))

    async def receive(self) -> None:
        """Notes the outcome."""
        assert self._socket is not None
        try:
            while not self.session.is_over:
                data = await self._socket.recv()
                now_s = self._clock()
                event = self.session.receive(parse_server_message(data))
                if isinstance(event, bytes):
                    self._take(event, now_s)
                elif isinstance(event, Failure):
                    self.outcome = event.code
                elif isinstance(event, Done):
                    self.outcome = DONE
            await self._socket.close()
        except ConnectionClosed as error:
            self.outcome = self.outcome or _close_of(error)
        except StreamingError as error:
            self.outcome = error.code
        finally:
            self._ended_s = self._clock()

    def abandon(self, outcome: str) -> None:
        if self.outcome is None:
            self.outcome = outcome
            if self._socket is not None:
                self._socket.transport.abort()

    def _take(self, payload: bytes, now_s: float) -> None:
        if self._first_ms is None:
            self._first_ms = (now_s - self._first_sent_s) * 1000
        if self.output is not None:
            self.output.append(payload)
        frames = self.session.output_position // self.session.output.hop
        chunks, late_ms = self._chunks, self._late_ms
        while len(late_ms) < len(chunks) and chunks[len(late_ms)][0] <= frames:
            late_ms.append((now_s - self.due_s(chunks[len(late_ms)][1] - 1)) * 1000)

    def report(self) -> dict[str, Any]:
        """`due_s` has every chunk that the input completed, from the start of the run; `late_ms` those that arrived, in
        order.
        """
        session, ready = self.session, self.session.ready
        return {
            "number": self.job.number,
            "kind": self.job.kind,
            "payload": self.job.payload,
            "outcome": self.outcome,
            "first_ms": self._first_ms,
            "due_s": [round(self.due_s(packets - 1) - self._begin_s, 4) for _, packets in self._chunks],
            "late_ms": [round(value, 3) for value in self._late_ms],
            "input_s": session.input_position / session.input.rate,
            "output_s": session.output_position / session.output.rate,
            "took_s": self._ended_s - self._begin_s,
            "chunk_frames": ready and ready.chunk_frames,
            "lookahead_frames": ready and ready.lookahead_frames,
        }


def _close_of(error: ConnectionClosed) -> str:
    return f"close {error.rcvd.code if error.rcvd is not None else 1006}"


async def keep_time(lives: list[Live], clock: Callable[[], float]) -> list[float]:
    """Sends every packet of all sessions when it is due; returns how late each was sent, in ms."""
    late_ms = []
    by_number = {live.job.number: live for live in lives}
    for due_s, session, number in heapq.merge(*(live.turns() for live in lives)):
        wait_s = due_s - clock()
        if wait_s > 0:
            await asyncio.sleep(wait_s + ROUNDING_S)
        begin_s = clock()
        if await by_number[session].send(number):
            late_ms.append((begin_s - due_s) * 1000)
    return late_ms


async def pour(lives: list[Live], begin_s: float, seconds: float, clock: Callable[[], float]) -> None:
    await asyncio.sleep(begin_s - clock())
    with suppress(TimeoutError):
        async with asyncio.timeout(begin_s + seconds - clock()):
            await asyncio.gather(*(live.pour() for live in lives))
            await asyncio.sleep(begin_s + seconds - clock())


def packets_of(job: Job) -> list[bytes]:
    stream = session_request(job.kind).input
    size, payload = stream.hop * stream.unit_bytes, Path(job.payload).read_bytes()
    return [payload[start : start + size] for start in range(0, len(payload), size)]


async def carry_out(plan: Plan, hear: Callable[[], str], say: Callable[[dict[str, Any]], None]) -> None:
    clock = time.monotonic
    cut = {(job.kind, job.payload): packets_of(job) for job in plan.jobs}
    lives = [Live(job, cut[job.kind, job.payload], plan.outputs is not None, clock) for job in plan.jobs]
    for live in lives:
        await live.open(plan.url, write_limit=32_768 if plan.pours else UNBOUNDED_BYTES)
    opened = [live for live in lives if live.outcome is None]
    say({"opened": len(opened)})
    begin_s = float(await asyncio.wait_for(asyncio.to_thread(hear), BEGIN_S))
    for live in lives:
        live.begin(begin_s)
    receivers = [asyncio.create_task(live.receive(), name=f"session {live.job.number}") for live in opened]
    late_ms: list[float] = []
    if plan.pours:
        await pour(opened, begin_s, plan.seconds, clock)
    else:
        late_ms = await keep_time(opened, clock)
        if receivers:
            await asyncio.wait(receivers, timeout=DRAIN_S)
    for live in opened:
        live.abandon(CUT_OFF if plan.pours else UNANSWERED)
    await asyncio.gather(*receivers)
    for live in lives:
        if plan.outputs is not None and live.output is not None:
            (Path(plan.outputs) / str(live.job.number)).write_bytes(b"".join(live.output))
    say({"sessions": [live.report() for live in lives], "send_late_ms": [round(value, 3) for value in late_ms]})


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Uses uvloop if it is installed, as the server does."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def main() -> None:
    plan = Plan.from_json(sys.stdin.readline())
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(carry_out(plan, sys.stdin.readline, lambda body: print(json.dumps(body), flush=True)))
    sys.stdin.read()  # the parent may still read this process's times; it ends the process


if __name__ == "__main__":
    main()
