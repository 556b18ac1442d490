"""The overhead of Ray Serve: the same sessions through Serve and through the server's own port, in turns.

A cluster of `--nodes` nodes (processes on this machine) has a replica with one worker on each, and the proxy on the
head; a `neucodec-server` with as many workers runs at the same time. `--sessions` live clients send 20 ms packets to
one, then to the other. A chunk's latency is that of benchmarks.latency. A round trip is that of a `mark` in a separate
session, to which the server replies at once. `added` is the median over the turns of the difference within a turn.
`front_percent` is a live session's share of a core in the process that talks to clients: the server, or Serve's proxy;
`replica_percent` is its share in the processes between proxy and workers.

    python -m benchmarks.serve --turns 3        # needs the extra `ray`
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.common.surroundings import RESULTS_FOLDER, write_report
from benchmarks.latency import LatencyCaller
from benchmarks.serve.cluster import served_cluster
from demos.server_process import ServerProcess
from neucodec_streaming.client import Marked, connect

RESULTS = RESULTS_FOLDER / "serve.json"
OWN, SERVE = "own", "serve"
PAUSE_S = 0.05
FIGURES = ("chunk_p50_ms", "chunk_p99_ms", "trip_p50_ms", "trip_p99_ms", "front_percent", "replica_percent")


async def round_trips(url: str, seconds: float) -> list[float]:
    """Returns the milliseconds from each mark to its return, one after the other."""
    trips_ms, until_s = [], time.perf_counter() + seconds
    async with connect(url, kind="encode") as session:
        while time.perf_counter() < until_s:
            sent_s = time.perf_counter()
            await session.mark(len(trips_ms))
            async for event in session:
                if isinstance(event, Marked):
                    break
            trips_ms.append((time.perf_counter() - sent_s) * 1000)
            await asyncio.sleep(PAUSE_S)
    return trips_ms


async def turn(
    url: str, watched: Sequence[Sequence[psutil.Process]], kind: str, sessions: int, seconds: float
) -> dict[str, float]:
    """Returns latencies, and each session's share of a core in the `watched` processes."""
    before_s, began_s = [_used_s(group) for group in watched], time.perf_counter()
    callers = [LatencyCaller(url, kind, "default", seconds, seed) for seed in range(sessions)]
    trips_ms, *_ = await asyncio.gather(round_trips(url, seconds), *(caller.run() for caller in callers))
    chunks_ms = np.concatenate([caller.latencies_ms for caller in callers])
    took_s = time.perf_counter() - began_s
    used_s = (_used_s(group) - before for group, before in zip(watched, before_s, strict=True))
    percents = (100 * used / took_s / sessions for used in used_s)
    found = (*np.percentile(chunks_ms, (50, 99)), *np.percentile(trips_ms, (50, 99)), *percents)
    return {name: round(float(value), 2) for name, value in zip(FIGURES, found, strict=True)}


def _used_s(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(one.cpu_times()[:2]) for one in processes)


def measure(given: argparse.Namespace) -> dict[str, Any]:
    settings = {"model": given.model, "profiles": "default", "batch_sizes": "1,2,4,8", "max_sessions": "64"}
    settings |= {"max_load": "1000000"}  # admits every session on any machine
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    turns = []
    print(" ".join(f"{cell:>14}" for cell in ("server", *FIGURES)), flush=True)
    with (
        served_cluster(given.nodes, settings | {"workers": "1"}, room=64) as cluster,
        ServerProcess(*flags, "--workers", given.nodes) as server,
    ):
        for _ in range(given.turns):
            one = {}
            own = [psutil.Process(server.pid)], []
            behind = cluster.processes("ProxyActor"), cluster.processes("ServeReplica")
            for name, url, watched in ((OWN, server.url, own), (SERVE, cluster.url, behind)):
                one[name] = asyncio.run(turn(url, watched, given.kind, given.sessions, given.seconds))
                print(" ".join(f"{cell:>14}" for cell in (name, *one[name].values())), flush=True)
            turns.append(one)
    medians = {name: {f: statistics.median(one[name][f] for one in turns) for f in FIGURES} for name in (OWN, SERVE)}
    added = {f: round(statistics.median(one[SERVE][f] - one[OWN][f] for one in turns), 2) for f in FIGURES}
    print(" ".join(f"{cell:>14}" for cell in ("added", *added.values())))
    return {**medians, "added": added, "turns": turns}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model", default="nano")
    add("--kind", default="roundtrip")
    add("--nodes", type=int, default=3)
    add("--sessions", type=int, default=12)
    add("--seconds", type=float, default=10.0, help="duration of a turn (default %(default)g)")
    add("--turns", type=int, default=3)
    add("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    found = measure(given)
    names = ("model", "kind", "nodes", "sessions", "seconds")
    write_report(given.out, {"ray": version("ray")} | {name: getattr(given, name) for name in names} | found)


if __name__ == "__main__":
    main()
