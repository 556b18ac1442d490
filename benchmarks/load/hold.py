"""One measurement of `benchmarks.load`: a server, client processes, and the rows computed from their reports.

Lateness is measured against the packets' schedule, so it includes clients that send late.
"""

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.common.processes import family
from benchmarks.common.surroundings import ROOT, waited_s
from benchmarks.load.client import DONE, DRAIN_S, OPEN_S, REFUSED, Job, Plan
from demos.server_process import ServerProcess
from neucodec_streaming.config import FRAME_MS

STOP_S = 20.0
WAIT_S = 3600.0
"""All sessions open before the first one starts, and a burst waits for its phase."""
LEAD_S = 0.5
"""Time between sending the start time and the start."""
CLIENT_START_S = 30.0
PHASES_S = 1.0
"""The sessions' first packets are due at random moments within this time."""
MAX_SEND_LATE_MS = 20.0
"""With a higher p99 of the clients' own lateness, a row says nothing about the server."""
LINE_BYTES = 1 << 28
QUIET, BURST = "", "burst"


@dataclass(frozen=True)
class RemoteServer:
    """A server whose processor times are unknown."""

    url: str
    pid: None = None


def patient_server(*arguments: object) -> ServerProcess:
    """Returns a server that waits for a session's first packet for as long as the phases may last."""
    return ServerProcess("--first-message-timeout-s", WAIT_S, *arguments)


async def _stop(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_S)
    except TimeoutError:
        process.kill()
        await process.wait()


class LoadOrder(Protocol):
    """An order for `python -m module`, which starts `since_s` after the others."""

    @property
    def module(self) -> str: ...
    @property
    def since_s(self) -> float: ...
    @property
    def sessions(self) -> int: ...
    def to_json(self) -> str: ...


class Clients:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    async def hear(self, at_most_s: float) -> dict[str, Any]:
        """Raises SystemExit if the process dies or stays silent for `at_most_s`."""
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), at_most_s)
        except TimeoutError:
            raise SystemExit(f"no message from a client process within {at_most_s:.0f} s") from None
        if not line:
            raise SystemExit("a client process died: see its output above")
        return json.loads(line)


@asynccontextmanager
async def client(order: LoadOrder) -> AsyncIterator[Clients]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", order.module, cwd=ROOT, stdin=pipe, stdout=pipe, limit=LINE_BYTES
    )
    try:
        clients = Clients(process)
        clients.say(order.to_json())
        yield clients
    finally:
        await _stop(process)


@dataclass(frozen=True)
class Usage:
    """Seconds of processor time and of run-queue delay until now.

    `server` includes its workers; `loop` is its main thread alone. The extra process has its own field, which includes
    the children that it has waited for. `machine` is everything, including time stolen by the host.
    """

    at: float
    server: float
    loop: float
    clients: float
    beside: float
    server_waited: float
    clients_waited: float
    machine: float

    @classmethod
    def now(cls, server: int | None, clients: Sequence[int], beside: int | None = None) -> "Usage":
        return cls(
            time.monotonic(),
            0.0 if server is None else sum(_cpu_s(Path(f"/proc/{pid}/stat")) for pid in family(server)),
            0.0 if server is None else _cpu_s(Path(f"/proc/{server}/task/{server}/stat")),
            sum(_cpu_s(Path(f"/proc/{pid}/stat")) for pid in clients),
            0.0 if beside is None else _cpu_s(Path(f"/proc/{beside}/stat"), with_children=True),
            0.0 if server is None else waited_s(server),
            sum(waited_s(pid) for pid in clients),
            _machine_cpu_s(),
        )


def _cpu_s(stat: Path, with_children: bool = False) -> float:
    """`with_children` adds those that the process waited for."""
    numbers = stat.read_text().rpartition(")")[2].split()
    return sum(map(int, numbers[11 : 15 if with_children else 13])) / os.sysconf("SC_CLK_TCK")


def _machine_cpu_s() -> float:
    """Returns the seconds in which any processor was not idle."""
    numbers = [int(number) for number in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _iowait, *others = numbers
    return (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Footprint:
    """Memory, open file descriptors and threads of a process and its descendants.

    `memory_bytes` counts shared pages once (Pss), `resident_bytes` in each process (Rss): the latter rises with a leak,
    but not when a process copies a shared page.
    """

    memory_bytes: int
    resident_bytes: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> "Footprint":
        pids = family(pid)
        rollups = [Path(f"/proc/{one}/smaps_rollup").read_text() for one in pids]
        shared_once, in_each = (
            sum(1024 * int(rollup.split(name)[1].split()[0]) for rollup in rollups) for name in ("Pss:", "Rss:")
        )
        counts = {name: sum(len(os.listdir(f"/proc/{one}/{name}")) for one in pids) for name in ("fd", "task")}
        return cls(shared_once, in_each, counts["fd"], counts["task"])

    def row(self) -> dict[str, int]:
        return {
            "server_memory_mb": round(self.memory_bytes / 1e6),
            "server_resident_mb": round(self.resident_bytes / 1e6),
            "server_descriptors": self.descriptors,
            "server_threads": self.threads,
        }


def shares(before: Usage, after: Usage, is_known: bool) -> dict[str, float | None]:
    """Returns shares of one core, and the run-queue delay. The time of an unknown server counts as other programs'."""
    found = {
        field.name: round((getattr(after, field.name) - getattr(before, field.name)) / (after.at - before.at), 3)
        for field in fields(Usage)
    }
    return {
        "server_cpu": found["server"] if is_known else None,
        "loop_cpu": found["loop"] if is_known else None,
        "clients_cpu": found["clients"],
        "beside_cpu": found["beside"],
        "others_cpu": round(max(0.0, found["machine"] - found["server"] - found["clients"] - found["beside"]), 3),
        "in_line": found["server_waited"] if is_known else None,
        "clients_in_line": found["clients_waited"],
    }


@dataclass(frozen=True)
class Phase:
    """Times are in seconds after the start of the run."""

    name: str
    since_s: float
    until_s: float


@dataclass(frozen=True)
class Held:
    """`beside` is the report of the extra process."""

    rows: list[dict[str, Any]]
    sessions: list[dict[str, Any]]
    beside: dict[str, Any] | None = None


def phases_of(seconds: float, bursts: bool) -> list[Phase]:
    """Returns one phase, or two of equal length, the second with the burst."""
    calm = Phase(QUIET, 0.0, seconds)
    return [calm, Phase(BURST, seconds, 2 * seconds)] if bursts else [calm]


def plans_of(jobs: Sequence[Job], processes: int, url: str, seconds: float, outputs: Path | None) -> list[Plan]:
    """Deals the jobs out to `processes` processes, or fewer if there are fewer jobs."""
    count = min(processes, len(jobs))
    folder = None if outputs is None else str(outputs)
    return [Plan(url, tuple(jobs[first::count]), seconds, folder) for first in range(count)]


async def hold(
    server: ServerProcess | RemoteServer,
    plans: Sequence[Plan],
    phases: Sequence[Phase],
    beside: LoadOrder | None = None,
) -> Held:
    orders: list[LoadOrder] = [*plans, *([beside] if beside is not None else [])]
    async with AsyncExitStack() as running:
        clients = [await running.enter_async_context(client(order)) for order in orders]
        for one, order in zip(clients, orders, strict=True):
            await one.hear(CLIENT_START_S + OPEN_S * order.sessions)
        begin_s = time.monotonic() + LEAD_S
        for one, order in zip(clients, orders, strict=True):
            one.say(str(begin_s + order.since_s))
        pids = [one.pid for one in clients[: len(plans)]]
        beside_pid = clients[-1].pid if beside is not None else None
        usages, footprints = [], []
        for moment_s in (0.0, *(phase.until_s for phase in phases)):
            await asyncio.sleep(begin_s + moment_s - time.monotonic())
            usages.append(Usage.now(server.pid, pids, beside_pid))
            footprints.append({} if server.pid is None else Footprint.of(server.pid).row())
        reports = [await one.hear(PHASES_S + DRAIN_S + CLIENT_START_S) for one in clients]
    lives = reports[: len(plans)]
    sessions = sorted((one for report in lives for one in report["sessions"]), key=lambda one: one["number"])
    send_late_ms = [value for report in lives for value in report["send_late_ms"]]
    rows = [
        {**row_of(sessions, send_late_ms, phase), **shares(before, after, server.pid is not None), **footprint}
        for phase, before, after, footprint in zip(phases, usages[:-1], usages[1:], footprints[1:], strict=True)
    ]
    return Held(rows, sessions, reports[-1] if beside is not None else None)


def row_of(sessions: Sequence[dict[str, Any]], send_late_ms: Sequence[float], phase: Phase) -> dict[str, Any]:
    """Lateness is of the chunks due in the phase, everything else of the whole run."""
    late_ms = [_late_ms_in(one, phase) for one in sessions]
    outcomes = Counter(one["outcome"] for one in sessions)
    frames = next((one["chunk_frames"] for one in sessions if one["chunk_frames"]), None)
    kinds = sorted({one["kind"] for one in sessions})
    send = spread(send_late_ms)
    row = {
        "phase": phase.name,
        "sessions": len(sessions),
        "held": outcomes.pop(DONE, 0),
        "refused": outcomes.pop(REFUSED, 0),
        "ended": dict(outcomes),
        "chunk_ms": frames and frames * FRAME_MS,
        "first_ms": spread([one["first_ms"] for one in sessions if one["first_ms"] is not None]),
        "late_ms": spread([value for values in late_ms for value in values]),
        "late_ms_of": {kind: spread(_of_kind(kind, sessions, late_ms)) for kind in kinds},
        "worst_session_p99_ms": max((spread(values)["p99"] for values in late_ms if values), default=None),
        "missing": sum(_missing_in(one, phase) for one in sessions),
        "send_late_ms": send,
        "clients_kept_up": send["p99"] is not None and send["p99"] <= MAX_SEND_LATE_MS,
    }
    return {**row, "in_time": is_in_time(row)}


def _late_ms_in(session: dict[str, Any], phase: Phase) -> list[float]:
    due_and_late = zip(session["due_s"], session["late_ms"], strict=False)  # missing chunks are at the end
    return [late_ms for due_s, late_ms in due_and_late if phase.since_s <= due_s < phase.until_s]


def _missing_in(session: dict[str, Any], phase: Phase) -> int:
    """Counts chunks that never arrived."""
    return sum(phase.since_s <= due_s < phase.until_s for due_s in session["due_s"][len(session["late_ms"]) :])


def _of_kind(kind: str, sessions: Sequence[dict[str, Any]], values: Sequence[list[float]]) -> list[float]:
    pairs = zip(sessions, values, strict=True)
    return [value for session, its in pairs if session["kind"] == kind for value in its]


def is_in_time(row: dict[str, Any]) -> bool:
    """Returns whether every session ended normally with every chunk, and p99 lateness is within a chunk's duration."""
    p99_ms = row["late_ms"]["p99"]
    return row["held"] == row["sessions"] and not row["missing"] and p99_ms is not None and p99_ms <= row["chunk_ms"]


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Returns p50, p95, p99, the largest and the count; None if there are no values."""
    if not values:
        return {"p50": None, "p95": None, "p99": None, "max": None, "count": 0}
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    found = {"p50": p50, "p95": p95, "p99": p99, "max": max(values)}
    return {**{name: round(float(value), 2) for name, value in found.items()}, "count": len(values)}


def poured(report: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": report["kind"],
        "outcome": report["outcome"],
        "seconds": round(report["took_s"], 1),
        "sent_s": round(report["input_s"], 1),
        "got_s": round(report["output_s"], 1),
        "times_real_time": round(report["output_s"] / report["took_s"], 1),
    }
