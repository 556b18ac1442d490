"""The clients of `benchmarks.soak`: seats that are refilled quickly, in one process.

It communicates with its parent as benchmarks.load.client does.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.load.client import BEGIN_S, DRAIN_S, ROUNDING_S, UNANSWERED, UNBOUNDED_BYTES, Job, Live, packets_of
from benchmarks.wire.servers import loop_factory
from neucodec_streaming.config import TOKENS_PER_SECOND

MIN_S, MAX_S = 10.0, 60.0
PAUSE_S = 1.0
"""Longest time that a seat is empty."""
VANISHING = 0.15
"""Share of sessions whose client vanishes."""
VANISHED = "vanished"


@dataclass(frozen=True)
class Seats:
    """A session takes one of the `jobs`, from anywhere in its input."""

    url: str
    jobs: tuple[Job, ...]
    seats: int
    seconds: float
    seed: int
    since_s: float = 0.0
    module = "benchmarks.soak.client"

    @property
    def sessions(self) -> int:
        """None is opened before the start."""
        return 0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> "Seats":
        body = json.loads(line)
        return cls(**{**body, "jobs": tuple(Job(**job) for job in body["jobs"])})


async def sit(
    order: Seats, seat: int, cut: dict[str, list[bytes]], begin_s: float, notes: list[dict[str, Any]]
) -> None:
    clock, rng = time.monotonic, random.Random(order.seed * 1000 + seat)
    await asyncio.sleep(begin_s + rng.uniform(0, MAX_S / 4) - clock())
    while clock() < begin_s + order.seconds:
        job = rng.choice(order.jobs)
        packets = cut[job.payload]
        count = int(rng.uniform(MIN_S, MAX_S) * TOKENS_PER_SECOND)
        first = rng.randrange(max(1, len(packets) - count))
        live = Live(job, packets[first : first + count], False, clock)
        await live.open(order.url, UNBOUNDED_BYTES)
        opened_s = clock()
        if live.outcome is None:
            await speak(live, rng.randrange(count) if rng.random() < VANISHING else None, opened_s)
        report = live.report()
        notes.append(
            {"at_s": round(opened_s - begin_s, 2), "kind": job.kind}
            | {name: report[name] for name in ("outcome", "first_ms", "due_s", "late_ms")}
        )
        await asyncio.sleep(rng.uniform(0, PAUSE_S))


async def speak(live: Live, vanishes_at: int | None, begin_s: float) -> None:
    """`vanishes_at` is the packet at which the client vanishes."""
    clock = time.monotonic
    live.begin(begin_s)
    receiver = asyncio.create_task(live.receive())
    for number in range(len(live.packets) + 1):
        await asyncio.sleep(max(0.0, live.due_s(number) + ROUNDING_S - clock()))
        if number == vanishes_at:
            live.abandon(VANISHED)
        if not await live.send(number):
            break
    await asyncio.wait([receiver], timeout=DRAIN_S)
    live.abandon(UNANSWERED)
    await receiver


async def carry_out(order: Seats, hear: Callable[[], str], say: Callable[[dict[str, Any]], None]) -> None:
    cut = {job.payload: packets_of(job) for job in order.jobs}
    say({"opened": 0})
    begin_s = float(await asyncio.wait_for(asyncio.to_thread(hear), BEGIN_S))
    notes: list[dict[str, Any]] = []
    await asyncio.gather(*(sit(order, seat, cut, begin_s, notes) for seat in range(order.seats)))
    say({"sessions": notes})


def main() -> None:
    order = Seats.from_json(sys.stdin.readline())
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(carry_out(order, sys.stdin.readline, lambda body: print(json.dumps(body), flush=True)))
    sys.stdin.read()


if __name__ == "__main__":
    main()
