"""A nearly full server for half an hour: `python -m benchmarks.soak --minutes 30 --data ../shared/speech`.

Seats for `--share` of the server's capacity hold one session after another, of 10 to 60 s of real speech in real time,
of every kind; one in seven vanishes without closing, and its place stays reserved for a while. Each minute is a row:
lateness of the chunks (as in `benchmarks.load`), the server's memory, threads, descriptors and places, and how the
sessions ended. After `--warm-up` minutes memory and lateness must not rise, by median slopes over all pairs of minutes.
The exit code is 1 if memory rises by more than MAX_RISE_MB an hour or the p99 of lateness over the run by more than
MAX_DRIFT of a chunk, if a session ended unexpectedly, or if anything is held after all clients are gone.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.surroundings import RESULTS_FOLDER, write_report
from benchmarks.common.trend import slope
from benchmarks.load.client import DONE, DRAIN_S, Job
from benchmarks.load.hold import CLIENT_START_S, LEAD_S, Footprint, client, patient_server, spread
from benchmarks.load.verify import payload_path, write_payloads
from benchmarks.soak.client import MAX_S, VANISHED, Seats
from demos.server_process import ServerProcess
from neucodec_streaming import load_codec
from neucodec_streaming.config import FRAME_MS, TOKENS_PER_SECOND
from neucodec_streaming.engine.engine import STAGES

RESULTS = RESULTS_FOLDER / "soak.json"
MINUTE_S = 60.0
CLIPS = 4
CLIP_S = 180
SETTLE_S = 60.0
"""Timeout of the server forgetting vanished clients."""
MAX_RISE_MB = 20.0
MAX_DRIFT = 0.1


def readiness(server: ServerProcess) -> dict[str, Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(server.url.replace("ws://", "http://") + "/readyz", timeout=30) as response:
        return json.load(response)


async def watch(server: ServerProcess, minutes: float, begin_s: float) -> list[dict[str, Any]]:
    """Returns what the server holds at the end of each minute."""
    held = []
    for minute in range(1, int(minutes) + 1):
        await asyncio.sleep(begin_s + minute * MINUTE_S - time.monotonic())
        sessions = (await asyncio.to_thread(readiness, server))["sessions"]
        held.append({"minute": minute, "sessions": sessions} | Footprint.of(server.pid).row())
        print(f"\rminute {minute} of {minutes:.0f}", end="", flush=True)
    print()
    return held


async def settled(server: ServerProcess) -> dict[str, Any]:
    """What is held after all clients are gone."""
    until_s = time.monotonic() + SETTLE_S
    sessions = (await asyncio.to_thread(readiness, server))["sessions"]
    while sessions and time.monotonic() < until_s:
        await asyncio.sleep(1.0)
        sessions = (await asyncio.to_thread(readiness, server))["sessions"]
    await asyncio.sleep(1.0)  # for the connection that asked to be closed
    return {"sessions": sessions} | Footprint.of(server.pid).row()


async def soak(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    codec = load_codec(given.model)
    write_payloads(folder, given.data, CLIPS, CLIP_S * TOKENS_PER_SECOND, codec)
    jobs = tuple(Job(0, kind, str(payload_path(folder, kind, clip))) for clip in range(CLIPS) for kind in STAGES)
    del codec
    async with patient_server("--model", given.model) as server:
        told = readiness(server)
        profile = told["profiles"]["default"]
        seats = given.seats or max(1, int(profile["capacity"]["roundtrip"] * given.share))
        before = {"sessions": told["sessions"]} | Footprint.of(server.pid).row()
        print(f"{seats} seats of {profile['capacity']['roundtrip']} roundtrip sessions", flush=True)
        order = Seats(server.url, jobs, seats, given.minutes * MINUTE_S, given.seed)
        async with client(order) as clients:
            await clients.hear(CLIENT_START_S)
            begin_s = time.monotonic() + LEAD_S
            clients.say(str(begin_s))
            held = await watch(server, given.minutes, begin_s)
            report = await clients.hear(2 * MAX_S + DRAIN_S)
        after = await settled(server)
    rows = [one | row_of(report["sessions"], one["minute"]) for one in held]
    chunk_ms = profile["chunk_frames"] * FRAME_MS
    return {"seats": seats, "chunk_ms": chunk_ms, "before": before, "after": after, "rows": rows}


def row_of(sessions: Sequence[dict[str, Any]], minute: int) -> dict[str, Any]:
    """Counts the chunks that were due in a minute, and the ends of sessions that started in it."""
    since_s, until_s = (minute - 1) * MINUTE_S, minute * MINUTE_S
    late_ms = [
        late
        for one in sessions
        for due_s, late in zip(one["due_s"], one["late_ms"], strict=False)
        if since_s <= one["at_s"] + due_s < until_s
    ]
    begun = [one for one in sessions if since_s <= one["at_s"] < until_s]
    first_ms = [one["first_ms"] for one in begun if one["first_ms"] is not None]
    return {
        "late_ms": spread(late_ms),
        "first_ms": spread(first_ms),
        "ended": dict(Counter(one["outcome"] for one in begun)),
    }


def judged(result: dict[str, Any], warm_up: int) -> dict[str, Any]:
    rows = result["rows"][warm_up:]
    memory = slope([row["server_resident_mb"] for row in rows]) * 60
    drift = {name: slope([row["late_ms"][name] for row in rows]) * len(rows) for name in ("p50", "p99")}
    ends = Counter()
    for row in result["rows"]:
        ends.update(row["ended"])
    wrong = []
    if memory > MAX_RISE_MB:
        wrong.append(f"memory rises by {memory:.0f} MB an hour")
    if drift["p99"] > MAX_DRIFT * result["chunk_ms"]:
        wrong.append(f"the p99 of lateness rises by {drift['p99']:.0f} ms over the run")
    if set(ends) - {DONE, VANISHED}:
        wrong.append(f"sessions ended as {dict(ends)}")
    before, after = result["before"], result["after"]
    for name in ("sessions", "server_descriptors", "server_threads"):
        if after[name] > before[name]:
            wrong.append(f"{name} were {before[name]} before and are {after[name]} after")
    return {"memory_mb_per_hour": round(memory, 1), "drift_ms": drift, "ended": dict(ends), "wrong": wrong}


def main(arguments: list[str] | None = None) -> int:
    """Returns 1 if something rises or is held."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=(__doc__ or "").split(":")[0])
    add = parser.add_argument
    add("--model", default="nano", help="(default %(default)s)")
    add("--data", type=Path, required=True, help="a folder with eval/, the recordings that are spoken")
    add("--minutes", type=float, default=30.0, help="(default %(default)s)")
    add("--share", type=float, default=0.8, help="share of the server's capacity (default %(default)s)")
    add("--seats", type=int, help="sessions at a time, instead of --share")
    add("--warm-up", type=int, default=5, help="first minutes, left out of the slopes (default %(default)s)")
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=RESULTS, help="(default %(default)s)")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(soak(given, Path(folder)))
    verdict = judged(result, given.warm_up)
    for row in result["rows"]:
        late = " ".join(f"{row['late_ms'][name]}" for name in ("p50", "p99", "max"))
        held = " ".join(f"{name} {row[name]}" for name in row if name.startswith(("server", "sessions")))
        print(f"minute {row['minute']}  {held}  late {late}  {row['ended']}")
    print(f"before {result['before']}\nafter  {result['after']}")
    print(json.dumps(verdict))
    arguments_used = {name: str(value) for name, value in vars(given).items() if name not in ("data", "out")}
    write_report(given.out, {"arguments": arguments_used} | verdict | result)
    return 1 if verdict["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
