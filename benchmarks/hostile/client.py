"""The attackers of `benchmarks.hostile`: a process that runs one attack after another, each in its phase.

It communicates with its parent as `benchmarks.load.client` does. An attack ends before its phase and drops all its
connections, so that its after-effects fall into its own phase.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.raw_connection import Target
from benchmarks.hostile.attacks import ATTACKS
from benchmarks.load.client import BEGIN_S

ACTIVE = 0.9
"""Share of its phase in which an attack runs."""


@dataclass(frozen=True)
class Strike:
    attack: str
    since_s: float
    until_s: float


@dataclass(frozen=True)
class HostilePlan:
    """`speech` and `tokens` are files of payload."""

    url: str
    strikes: tuple[Strike, ...]
    speech: str
    tokens: str
    since_s: float = 0.0
    module = "benchmarks.hostile.client"
    sessions = 0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> "HostilePlan":
        body = json.loads(line)
        return cls(**{**body, "strikes": tuple(Strike(**strike) for strike in body["strikes"])})


async def strike(target: Target, attack: str, until_s: float) -> Counter[str]:
    """Attacks until that time of the monotonic clock."""
    target.counts.clear()
    try:
        async with asyncio.timeout(until_s - time.monotonic()):
            await ATTACKS[attack](target)
    except TimeoutError:
        pass
    finally:
        target.drop_all()
    return Counter(target.counts)


async def carry_out(
    plan: HostilePlan, target: Target, hear: Callable[[], str], say: Callable[[dict[str, Any]], None]
) -> None:
    say({"opened": 0})
    begin_s = float(await asyncio.wait_for(asyncio.to_thread(hear), BEGIN_S))
    counts: dict[str, dict[str, int]] = {}
    for one in plan.strikes:
        await asyncio.sleep(begin_s + one.since_s - time.monotonic())
        end_s = one.since_s + ACTIVE * (one.until_s - one.since_s)
        counts[one.attack] = dict(sorted((await strike(target, one.attack, begin_s + end_s)).items()))
    say({"counts": counts})


def main() -> None:
    plan = HostilePlan.from_json(sys.stdin.readline())
    target = Target.of(plan.url, Path(plan.speech).read_bytes(), Path(plan.tokens).read_bytes())
    asyncio.run(carry_out(plan, target, sys.stdin.readline, lambda body: print(json.dumps(body), flush=True)))
    sys.stdin.read()  # the parent may still read this process's times, and ends it


if __name__ == "__main__":
    main()
