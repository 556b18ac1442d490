"""The number of live sessions that a server holds in time: `python -m benchmarks.load --model nano`.

Starts the real server in its own process on loopback (or uses a running one, `--url`), and client processes, one for
every 16 sessions. Each session sends real speech (as tokens, encoded offline, if it decodes) in packets of 20 ms, in
real time, at a random phase. `--sessions` are held for `--seconds`; `--ramp` raises their number in steps until more
than one chunk in a hundred is late by more than its own duration, or a session is refused or lost.

A chunk's lateness is the time from the scheduled moment of the packet that completes its input to the arrival of its
output. It excludes the algorithmic latency, and includes the sockets, the clients and clients that send late. `first`
is the time from a session's first packet to its first output, with the algorithmic latency. Processor times are shares
of one core; `loop` is the server's event loop, a part of `server`; `in_line` and `in_line c` are the run-queue delay of
the server's and the clients' threads. A row is meaningful only if `send99`, the lateness of the clients' sending, and
`others`, the load of the rest of the machine, are small.

`--burst` runs the sessions for twice as long; in the second half, one more session sends an hour of input as fast as
the server accepts it. `--verify` compares every output with the session's output alone (benchmarks/load/verify.py); the
exit code is 1 if that fails. With `--url`, `--batch-sizes` and `--threads` must match the server's.
"""

import argparse
import asyncio
import random
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.other_program import other_program
from benchmarks.common.surroundings import RESULTS_FOLDER, write_report
from benchmarks.load.client import Job, Plan
from benchmarks.load.hold import BURST, PHASES_S, Held, RemoteServer, hold, patient_server, phases_of, plans_of, poured
from benchmarks.load.verify import References, config_of, payload_path, verified, write_payloads
from demos.server_process import ServerProcess
from neucodec_streaming import load_codec
from neucodec_streaming.codec import Codec
from neucodec_streaming.config import TOKENS_PER_SECOND
from neucodec_streaming.engine.engine import STAGES
from neucodec_streaming.errors import ConfigError
from neucodec_streaming.server.settings.fields import Settings, parse_batch_sizes

RESULTS = RESULTS_FOLDER / "load.json"
KINDS = tuple(STAGES)
SESSIONS_PER_PROCESS = 16
COLUMNS = (
    ("sessions", 8), ("held", 5), ("refused", 7), ("chunks", 7), ("missing", 7), ("first50", 8), ("first99", 8),
    ("p50", 7), ("p95", 7), ("p99", 7), ("max", 7), ("worst99", 8), ("send99", 7), ("sendmax", 8), ("server", 7),
    ("loop", 6), ("clients", 7), ("others", 6), ("in_line", 7), ("in_line c", 9), ("mem MB", 7), ("in time", 8),
)  # fmt: skip


def parse_mix(text: str) -> tuple[str, ...]:
    """Parses `encode:1,decode:1,roundtrip:2` into the kinds of one cycle of sessions. Raises ConfigError."""
    kinds: list[str] = []
    for part in text.split(","):
        kind, _, weight = part.strip().partition(":")
        if kind not in KINDS or not (weight or "1").isdecimal() or int(weight or "1") < 1:
            raise ConfigError(f"bad mix {part.strip()!r}: give {', '.join(KINDS)}, each with :WEIGHT of at least 1")
        kinds += [kind] * int(weight or "1")
    return tuple(kinds)


def jobs_of(mix: Sequence[str], sessions: int, clips: int, folder: Path, seed: int) -> list[Job]:
    """Returns the sessions of a run: kinds cycle through the mix, inputs take turns, phases are random."""
    rng = random.Random(seed)
    kinds = [mix[number % len(mix)] for number in range(sessions)]
    return [
        Job(number, kind, str(payload_path(folder, kind, number // len(mix) % clips)), rng.uniform(0, PHASES_S))
        for number, kind in enumerate(kinds)
    ]


def counts_of(given: argparse.Namespace) -> Iterator[int]:
    return iter(range(given.step, given.most + 1, given.step) if given.ramp else (given.sessions,))


class LoadRun:
    """Writes its inputs to `folder`, measures, then verifies."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self._given = given
        self._folder = folder
        self._seconds = given.ramp_seconds if given.ramp else given.seconds
        self._phases = phases_of(self._seconds, given.burst)
        self._clips = min(given.clips, max(counts_of(given)))
        encodes = "decode" in given.mix or (given.burst and given.burst_kind == "decode")
        self._codec: Codec | None = load_codec(given.model) if encodes or given.verify else None
        packets = int(self._phases[-1].until_s * TOKENS_PER_SECOND)
        write_payloads(folder, given.data, self._clips, packets, self._codec if encodes else None)
        self.helds: list[Held] = []

    async def measure(self) -> None:
        """Stops cleanly on SIGTERM."""
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        async with server_of(self._given) as server:
            for sessions in counts_of(self._given):
                self.helds.append(await self._hold(server, sessions))
                for row in self.helds[-1].rows:
                    show(row)
                if self._given.ramp and not self.helds[-1].rows[-1]["in_time"]:
                    break

    async def _hold(self, server: ServerProcess | RemoteServer, sessions: int) -> Held:
        given = self._given
        outputs = self._outputs(len(self.helds)) if given.verify else None
        if outputs is not None:
            outputs.mkdir()
        jobs = jobs_of(given.mix, sessions, self._clips, self._folder, given.seed)
        processes = given.processes or -(-sessions // SESSIONS_PER_PROCESS)
        seconds = self._phases[-1].until_s
        plans = plans_of(jobs, processes, server.url, seconds, outputs)
        burst = None
        if given.burst:
            job = Job(sessions, given.burst_kind, str(payload_path(self._folder, given.burst_kind, 0)))
            burst = Plan(server.url, (job,), self._seconds, pours=True, since_s=self._phases[-1].since_s)
        with other_program(given.others, 2 * seconds + 60):
            held = await hold(server, plans, self._phases, burst)
        if held.beside is not None:
            held.rows[-1]["burst"] = poured(held.beside["sessions"][0])
        return held

    def _outputs(self, number: int) -> Path:
        return self._folder / f"outputs-{number}"

    def verify(self) -> list[dict[str, Any]]:
        assert self._codec is not None, "loaded where it is asked for"
        sizes = self._given.batch_sizes
        ready = next((one for held in self.helds for one in held.sessions if one["chunk_frames"]), None)
        if ready is None:
            return []
        print("computing each session's output alone", flush=True)
        references = References(self._codec, config_of(self._codec, ready), sizes[0])
        return [
            verified(held.sessions, self._outputs(number), references, len(sizes) == 1)
            for number, held in enumerate(self.helds)
        ]


@asynccontextmanager
async def server_of(given: argparse.Namespace) -> AsyncIterator[ServerProcess | RemoteServer]:
    if given.url:
        yield RemoteServer(given.url)
        return
    arguments = ["--model", given.model, "--batch-sizes", ",".join(str(size) for size in given.batch_sizes)]
    for name in ("threads", "gather_ms", "max_sessions", "max_load"):
        if getattr(given, name) is not None:
            arguments += ["--" + name.replace("_", "-"), str(getattr(given, name))]
    async with patient_server(*arguments) as server:
        yield server


def show(row: dict[str, Any]) -> None:
    """Prints the details that do not fit into the row below it."""
    late, first, send = row["late_ms"], row["first_ms"], row["send_late_ms"]
    cells = [
        row["sessions"], row["held"], row["refused"], late["count"], row["missing"], first["p50"], first["p99"],
        late["p50"], late["p95"], late["p99"], late["max"], row["worst_session_p99_ms"], send["p99"], send["max"],
        row["server_cpu"], row["loop_cpu"], row["clients_cpu"], row["others_cpu"], row["in_line"],
        row["clients_in_line"], row.get("server_memory_mb"), "yes" if row["in_time"] else "NO",
    ]  # fmt: skip
    texts = ("-" if cell is None else str(cell) for cell in cells)
    print(" ".join(f"{text:>{width}}" for text, (_, width) in zip(texts, COLUMNS, strict=True)), flush=True)
    if row["phase"] == BURST:
        burst = row["burst"]
        print(
            f"    beside them one {burst['kind']} session took {burst['got_s']} s of output in {burst['seconds']} s,"
            f" {burst['times_real_time']} times real time ({burst['outcome']})"
        )
    if len(row["late_ms_of"]) > 1:
        print("    p99 of " + ", ".join(f"{kind} {its['p99']}" for kind, its in row["late_ms_of"].items()))
    if row["ended"]:
        print("    lost: " + ", ".join(f"{count}: {why}" for why, count in row["ended"].items()))
    if not row["clients_kept_up"]:
        print("    THE CLIENTS DID NOT KEEP UP: this row says nothing about the server")


def show_verified(found: dict[str, Any]) -> None:
    for kind, its in found["kinds"].items():
        measures = ", ".join(f"{name} {its[name]:.6g}" for name in its if name not in ("sessions", "identical"))
        print(f"{kind}: {its['identical']} of {its['sessions']} outputs identical; worst: {measures}")
    print(f"FAILED: sessions {found['failed']}" if found["failed"] else "every output is right")


def largest_in_time(rows: Sequence[dict[str, Any]]) -> int | None:
    return max((row["sessions"] for row in rows if row["in_time"]), default=None)


def _batch_sizes(text: str) -> tuple[int, ...]:
    return _read(parse_batch_sizes, text)


def _mix(text: str) -> tuple[str, ...]:
    return _read(parse_mix, text)


def _read(parse: Any, text: str) -> Any:
    try:
        return parse(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parser() -> argparse.ArgumentParser:
    default_sizes = ",".join(str(size) for size in Settings().batch_sizes)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model", default="nano", help="a bundled name, a folder or a hub id")
    add("--data", type=Path, default=Path("../shared/speech"), help="folder that contains eval/")
    add("--url", help="a running server, ws://HOST:PORT; its processor times are unknown")
    add("--sessions", type=int, default=16)
    add("--seconds", type=float, default=60.0, help="duration (default 60), doubled by --burst")
    add("--mix", type=_mix, default=("roundtrip",), help="e.g. encode:1,decode:1,roundtrip:2 (default roundtrip)")
    add("--ramp", action="store_true", help="raise the number of sessions in steps; ignores --sessions and --seconds")
    add("--step", type=int, default=8, help="first number of sessions of the ramp, and its increment (default 8)")
    add("--ramp-seconds", type=float, default=20.0, help="duration of each step of the ramp (default 20)")
    add("--most", type=int, default=256, help="largest number of sessions of the ramp (default 256)")
    add("--others", type=float, default=0.0, metavar="CORES", help="load of another program (default 0)")
    add("--burst", action="store_true", help="add a second half with one session that sends as fast as it can")
    add("--burst-kind", choices=KINDS, default="decode", help="(default decode)")
    add("--verify", action="store_true", help="compare every output with the session's output alone")
    add("--clips", type=int, default=8, help="distinct inputs (default 8)")
    add("--processes", type=int, help=f"client processes (default: one for every {SESSIONS_PER_PROCESS} sessions)")
    add("--seed", type=int, default=0, help="seed of the sessions' phases (default 0)")
    add("--threads", type=int, help="torch threads of the server (default: torch's own choice)")
    add("--batch-sizes", type=_batch_sizes, default=Settings().batch_sizes, help=f"(default {default_sizes})")
    add("--gather-ms", type=float)
    add("--max-sessions", type=int)
    add("--max-load", type=float)
    add("--out", type=Path, default=RESULTS)
    return parser


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.ramp and given.burst:
        parser.error("--burst needs a fixed number of --sessions: it does not work with --ramp")
    torch.set_num_threads(given.threads or 1)  # the references are computed with as many threads as the server uses
    with tempfile.TemporaryDirectory() as folder:
        run = LoadRun(given, Path(folder))
        print(" ".join(f"{name:>{width}}" for name, width in COLUMNS), "  (times in ms)")
        asyncio.run(run.measure())
        rows = [row for held in run.helds for row in held.rows]
        if given.ramp:
            print(f"the most sessions held in time: {largest_in_time(rows)}")
        found = run.verify() if given.verify else []
    for one in found:
        show_verified(one)
    report = {
        "model": Path(given.model).name,
        "server_threads": given.threads,
        "batch_sizes": given.batch_sizes,
        "gather_ms": given.gather_ms,
        "max_sessions": given.max_sessions,
        "max_load": given.max_load,
        "mix": given.mix,
        "seconds": given.ramp_seconds if given.ramp else given.seconds,
        "clips": given.clips,
        "others": given.others,
        "seed": given.seed,
        "rows": rows,
        "most_in_time": largest_in_time(rows),
        "verified": found,
    }
    write_report(given.out, report)
    return int(any(one["failed"] for one in found))


if __name__ == "__main__":
    sys.exit(main())
