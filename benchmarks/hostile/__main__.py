"""The effect of hostile clients on others: `python -m benchmarks.hostile --model nano --data ../shared/speech`.

Live round-trip sessions, as in `benchmarks.load`, are held through phases of `--seconds` each: calm, one for every
attack of benchmarks/hostile/attacks.py (or those of `--attacks`), and calm again. A row is a phase, with its lateness
next to that of the calm. The target: no attack raises the p99 or the largest lateness by more than one step of each
part, encoder and decoder, at the server's largest batch size, measured at the start of the run on all cores. The
difference between the two calm phases is the noise of the machine. Processors are shared with all clients: `attack` is
the attackers' share of one core, `others` that of everything but server and clients.

The exit code is 1 if a session's output differs from what it gets alone (benchmarks/load/verify.py), or the server
still holds descriptors, threads, memory or sessions at the end; times do not affect it.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.surroundings import RESULTS_FOLDER, write_report
from benchmarks.hostile.attacks import ATTACKS
from benchmarks.hostile.client import HostilePlan, Strike
from benchmarks.load.__main__ import SESSIONS_PER_PROCESS, jobs_of, show_verified
from benchmarks.load.hold import Footprint, Held, Phase, hold, patient_server, plans_of
from benchmarks.load.verify import References, config_of, payload_path, verified, write_payloads
from demos.server_process import ServerProcess
from neucodec_streaming import load_codec
from neucodec_streaming.config import TOKENS_PER_SECOND
from neucodec_streaming.server.loading import load_engines
from neucodec_streaming.server.settings.fields import Settings

RESULTS = RESULTS_FOLDER / "hostile.json"
CALM, CALM_AGAIN = "calm", "calm again"
SETTLE_S = 45.0
"""The server keeps lost sessions for 30 s."""
MAX_GROWTH_MB = 64
"""Memory growth from the end of the first calm phase to the end of the last, with the same sessions open."""
COLUMNS = (
    ("phase", 11), ("chunks", 7), ("missing", 8), ("p50", 7), ("p95", 7), ("p99", 7), ("max", 8), ("+p99", 7),
    ("+max", 8), ("target", 9), ("send99", 7), ("server", 7), ("loop", 6), ("clients", 8), ("attack", 7),
    ("others", 7), ("in_line", 8), ("mem MB", 7), ("fds", 5), ("threads", 8),
)  # fmt: skip


def phases_of(attacks: Sequence[str], seconds: float) -> list[Phase]:
    names = (CALM, *attacks, CALM_AGAIN)
    return [Phase(name, number * seconds, (number + 1) * seconds) for number, name in enumerate(names)]


def step_ms_of(model: str, batch_size: int) -> float:
    """Time of one encoder and one decoder step, as measured by the server at startup."""
    settings = Settings(model=model, batch_sizes=(batch_size,), max_sessions=2 * batch_size, profiles={"default": None})
    _, made = load_engines(settings)
    return 1000 * sum(times[batch_size] for times in made.budget.step_s.values())


def compared_with_calm(rows: Sequence[dict[str, Any]], step_ms: float) -> list[dict[str, Any]]:
    """Adds to each row its lateness beyond that of the first, and whether that is within the target."""
    calm = rows[0]["late_ms"]
    return [{**row, **_difference(row["late_ms"], calm, step_ms)} for row in rows]


def _difference(late_ms: dict[str, Any], calm_ms: dict[str, Any], step_ms: float) -> dict[str, Any]:
    if late_ms["p99"] is None or calm_ms["p99"] is None:
        return {"p99_more_ms": None, "max_more_ms": None, "p99_within": False, "max_within": False}
    more = {name: round(late_ms[name] - calm_ms[name], 2) for name in ("p99", "max")}
    within = {f"{name}_within": value <= step_ms for name, value in more.items()}
    return {f"{name}_more_ms": value for name, value in more.items()} | within


def show(row: dict[str, Any]) -> None:
    late = row["late_ms"]
    target = "/".join("pass" if row[f"{name}_within"] else "MISS" for name in ("p99", "max"))
    cells = [
        row["phase"], late["count"], row["missing"], late["p50"], late["p95"], late["p99"], late["max"],
        row["p99_more_ms"], row["max_more_ms"], target, row["send_late_ms"]["p99"], row["server_cpu"], row["loop_cpu"],
        row["clients_cpu"], row["beside_cpu"], row["others_cpu"], row["in_line"], row["server_memory_mb"],
        row["server_descriptors"], row["server_threads"],
    ]  # fmt: skip
    texts = ("-" if cell is None else str(cell) for cell in cells)
    print(" ".join(f"{text:>{width}}" for text, (_, width) in zip(texts, COLUMNS, strict=True)), flush=True)


async def settled(server: ServerProcess, before: Footprint) -> dict[str, Any]:
    """What the server still holds, compared with before, once it has released the clients or after SETTLE_S."""
    deadline_s = asyncio.get_running_loop().time() + SETTLE_S
    while True:
        sessions, now = await asyncio.to_thread(open_sessions, server.url), Footprint.of(server.pid)
        is_back = sessions == 0 and now.descriptors <= before.descriptors and now.threads <= before.threads
        if is_back or asyncio.get_running_loop().time() > deadline_s:
            return {"before": before.row(), "after": now.row(), "sessions": sessions, "is_back": is_back}
        await asyncio.sleep(0.2)


def open_sessions(url: str) -> int:
    with urllib.request.urlopen(url.replace("ws", "http", 1) + "/readyz", timeout=SETTLE_S) as response:
        return json.load(response)["sessions"]


async def measure(given: argparse.Namespace, folder: Path, phases: Sequence[Phase]) -> tuple[Held, dict[str, Any]]:
    """Returns the results and what a server of our own still holds after all phases."""
    jobs = jobs_of(("roundtrip",), given.sessions, given.clips, folder, given.seed)
    outputs = folder / "outputs"
    arguments = ["--model", given.model, "--profiles", "default", "--batch-sizes", str(given.batch_size)]
    arguments += [] if given.max_load is None else ["--max-load", str(given.max_load)]
    async with patient_server(*arguments) as server:
        open_sessions(server.url)  # memory of the first request is not growth
        before = Footprint.of(server.pid)
        plans = plans_of(jobs, -(-given.sessions // SESSIONS_PER_PROCESS), server.url, phases[-1].until_s, outputs)
        strikes = tuple(Strike(phase.name, phase.since_s, phase.until_s) for phase in phases[1:-1])
        speech, tokens = (str(payload_path(folder, kind, 0)) for kind in ("encode", "decode"))
        held = await hold(server, plans, phases, HostilePlan(server.url, strikes, speech, tokens))
        return held, await settled(server, before)


def judged(rows: Sequence[dict[str, Any]], state: dict[str, Any]) -> list[str]:
    """Returns the faults, apart from slow answers."""
    growth_mb = rows[-1]["server_resident_mb"] - rows[0]["server_resident_mb"]
    lost = rows[0]["sessions"] - rows[0]["held"]
    return [
        *([f"{lost} sessions were refused or lost"] if lost else []),
        *([f"the server still holds something: {state}"] if not state["is_back"] else []),
        *([f"memory grew by {growth_mb} MB, at most {MAX_GROWTH_MB}"] if growth_mb > MAX_GROWTH_MB else []),
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model", default="nano", help="a bundled name, a folder or a hub id")
    add("--data", type=Path, default=Path("../shared/speech"), help="folder that holds eval/")
    add("--sessions", type=int, default=8, help="well-behaved sessions (default 8)")
    add("--seconds", type=float, default=20.0, help="duration of each phase (default 20)")
    add("--attacks", nargs="+", choices=ATTACKS, default=list(ATTACKS), help="(default all)")
    add("--batch-size", type=int, default=2, help="batch size of every step (default 2)")
    add("--max-load", type=float, help="max_load of the server")
    add("--clips", type=int, default=4, help="distinct inputs (default 4)")
    add("--seed", type=int, default=0, help="seed of the sessions' start times (default 0)")
    add("--out", type=Path, default=RESULTS)
    return parser


def main(arguments: list[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    phases = phases_of(given.attacks, given.seconds)
    codec = load_codec(given.model)
    step_ms = step_ms_of(given.model, given.batch_size)
    print(f"a step of each part at batch size {given.batch_size}: {step_ms:.1f} ms; holding {phases[-1].until_s:.0f} s")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "outputs").mkdir()
        write_payloads(folder, given.data, given.clips, int(phases[-1].until_s * TOKENS_PER_SECOND), codec)
        held, state = asyncio.run(measure(given, folder, phases))
        rows = compared_with_calm(held.rows, step_ms)
        print(" ".join(f"{column:>{width}}" for column, width in COLUMNS), "  (times in ms)")
        for row in rows:
            show(row)
        assert held.beside is not None
        for attack, counts in held.beside["counts"].items():
            print(f"    {attack}: " + ", ".join(f"{count} {what}" for what, count in counts.items()))
        print(f"before {state['before']}, after {state['after']}, sessions {state['sessions']}")
        references = References(codec, config_of(codec, held.sessions[0]), given.batch_size)
        found = verified(held.sessions, folder / "outputs", references, True)
    show_verified(found)
    wrong = judged(rows, state)
    for one in wrong:
        print("FAILED:", one)
    report = {
        "model": Path(given.model).name,
        "sessions": given.sessions,
        "seconds": given.seconds,
        "batch_size": given.batch_size,
        "step_ms": round(step_ms, 2),
        "rows": rows,
        "counts": held.beside["counts"],
        "server": state,
        "verified": found,
        "wrong": wrong,
    }
    write_report(given.out, report)
    return int(bool(wrong or found["failed"]))


if __name__ == "__main__":
    sys.exit(main())
