"""Sessions through faults of connection, network and server: `python -m benchmarks.faults --times 200 --data
../shared/speech`.

A server runs in its own process behind its own link (in a network namespace, if this user may create one), and sessions
of the client library reach it through the proxy of faulty_proxy. Each session meets one of FAULTS at a random moment; a
server that is killed (SIGKILL) or stopped (SIGTERM) restarts for all running sessions.

A session's output is compared with that of the same input without a fault: byte-identical wherever `Resumed` says
"exact" or there was none, nothing missing beyond the reported `gap`, and nothing twice. With several `--batch-sizes`
the bits depend on how many sessions are stepped together; samples then count as equal within SAMPLE_TOLERANCE. The exit
code is 1 if a check fails or the server holds a session at the end. `again` is the time from the fault to the next
output.
"""

import argparse
import asyncio
import random
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.recordings import load, recordings
from benchmarks.common.surroundings import RESULTS_FOLDER, write_report
from benchmarks.faults.testbed import LINK_DOWN, World, world
from neucodec_streaming import load_codec
from neucodec_streaming.client import Audio, Connection, Done, Resumed, Tokens, connect
from neucodec_streaming.client.dial import Deadlines
from neucodec_streaming.config import INPUT_RATE
from neucodec_streaming.engine.engine import STAGES
from neucodec_streaming.errors import StreamingError

RESULTS = RESULTS_FOLDER / "faults.json"
KINDS = tuple(STAGES)
FAULTS = ("reset", "cut", "cut at a byte", "stall", "half-open", "late", LINK_DOWN, "server killed", "server stopped",
          "client killed")  # fmt: skip
CLIPS = 4
SECONDS = 6.0
"""Duration of a session's speech."""
PACE = 2.0
"""Sending speed, relative to real time."""
DEADLINES = Deadlines(open_s=5.0, answer_s=120.0, send_s=120.0, alive_s=1.5, resume_s=120.0)
PACKET_S = 0.02
SAMPLE_TOLERANCE = 1e-4
"""Of full scale: the tolerance of equal output; rounding to 16 bits is a third of it."""


@dataclass
class Trial:
    fault: str
    kind: str
    resumed: list[str]
    gap: int = 0
    missing: int = 0
    doubled: int = 0
    differ: int = 0
    again_s: float | None = None
    error: str = ""

    @property
    def is_exact(self) -> bool:
        return not (self.missing or self.doubled or self.differ or self.error)

    @property
    def is_told(self) -> bool:
        """Whether every deviation was reported: gaps exactly, different bits by "approximate"."""
        said = "exact" if not self.resumed else max(self.resumed, key=("exact", "approximate", "new").index)
        honest = self.missing == self.gap and (self.differ == 0 or said == "approximate")
        return honest and not self.doubled and not self.error and said != "new"


class Hearing:
    def __init__(self) -> None:
        self.pieces: list[tuple[int, np.ndarray]] = []
        self.resumed: list[Resumed] = []
        self.done: Done | None = None
        self.heard_s: list[float] = []

    async def of(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        async for event in connection:
            if isinstance(event, Audio | Tokens):
                data = event.samples if isinstance(event, Audio) else event.tokens
                self.pieces.append((event.position, data))
                self.heard_s.append(loop.time())
            elif isinstance(event, Resumed):
                self.resumed.append(event)
            elif isinstance(event, Done):
                self.done = event

    def compare(self, trial: Trial, expected: np.ndarray, tolerance: float = 0.0) -> None:
        count = np.zeros(len(expected), np.int64)
        heard = np.zeros_like(expected)
        for position, data in self.pieces:
            if position + len(data) > len(expected):
                trial.error = f"output up to {position + len(data)}, {len(expected)} are expected"
                return
            count[position : position + len(data)] += 1
            heard[position : position + len(data)] = data
        trial.missing = int((count == 0).sum())
        trial.doubled = int((count > 1).sum())
        off = np.abs(heard.astype(np.float64) - expected)[count > 0]
        trial.differ = int((off > tolerance).sum())
        trial.resumed = [resumed.how for resumed in self.resumed]
        trial.gap = sum(resumed.gap for resumed in self.resumed)
        if not trial.error and (self.done is None or self.done.output != len(expected)):
            trial.error = f"the totals are {self.done}, {len(expected)} units are expected"


def packets_of(data: np.ndarray, rate: int) -> list[np.ndarray]:
    step = max(1, int(rate * PACKET_S))
    return [data[start : start + step] for start in range(0, len(data), step)]


async def speak(connection: Connection, packets: Sequence[np.ndarray]) -> None:
    for packet in packets:
        await connection.send(packet)
        await asyncio.sleep(PACKET_S / PACE)
    await connection.end()


async def unbroken(url: str, kind: str, data: np.ndarray) -> np.ndarray:
    hearing = Hearing()
    async with connect(url, kind=kind, deadlines=DEADLINES, resume=False) as connection, asyncio.TaskGroup() as group:
        group.create_task(speak(connection, packets_of(data, connection.ready.input.rate)))
        group.create_task(hearing.of(connection))
    return np.concatenate([piece for _, piece in hearing.pieces])


async def one(
    where: World, fault: str, kind: str, data: np.ndarray, expected: np.ndarray, tolerance: float, rng: random.Random
) -> Trial:
    trial, hearing = Trial(fault, kind, []), Hearing()
    loop = asyncio.get_running_loop()
    try:
        async with (
            where.network(rng) as network,
            asyncio.timeout(4 * DEADLINES.resume_s),
            connect(network.url, kind=kind, deadlines=DEADLINES) as connection,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(speak(connection, packets_of(data, connection.ready.input.rate)))
            group.create_task(hearing.of(connection))
            await asyncio.sleep(rng.uniform(0.0, SECONDS / PACE))
            begin_s = loop.time()
            await where.inflict(fault, network, rng)
        later = [moment for moment in hearing.heard_s if moment > begin_s]
        trial.again_s = round(later[0] - begin_s, 3) if later else None
    except* (StreamingError, TimeoutError, OSError) as group_error:
        trial.error = "; ".join(f"{type(error).__name__}: {error}" for error in group_error.exceptions)
    hearing.compare(trial, expected, tolerance)
    return trial


async def run(given: argparse.Namespace) -> tuple[list[Trial], dict[str, Any]]:
    """Returns the outcomes of all trials, `at_once` at a time, and the server's."""
    rng = random.Random(given.seed)
    codec = load_codec(given.model)
    audio = np.concatenate([load(path) for _, path in recordings(given.data)])
    samples = int(SECONDS * INPUT_RATE)
    inputs, expected = {}, {}
    trials: list[Trial] = []
    tolerance = SAMPLE_TOLERANCE if "," in given.batch_sizes else 0.0
    async with world(given.model, given.batch_sizes) as where:
        clips = min(CLIPS, len(audio) // samples)
        for clip in range(clips):
            pcm = audio[clip * samples : (clip + 1) * samples]
            for kind in KINDS:
                inputs[kind, clip] = codec.encode(pcm) if kind == "decode" else pcm
                expected[kind, clip] = await unbroken(where.url, kind, inputs[kind, clip])
        faults = [fault for fault in FAULTS if fault != LINK_DOWN or where.has_link]
        while len(trials) < given.times:
            async with asyncio.TaskGroup() as group:
                tasks = []
                for number in range(len(trials), min(len(trials) + given.together, given.times)):
                    kind, clip = rng.choice(KINDS), rng.randrange(clips)
                    fault = faults[number * len(faults) // given.times]
                    case = inputs[kind, clip], expected[kind, clip], tolerance
                    tasks.append(group.create_task(one(where, fault, kind, *case, random.Random(number))))
            trials += [task.result() for task in tasks]
            print(f"\r{len(trials)} of {given.times}", end="", flush=True)
        print()
        left = await where.sessions_left()
        return trials, {"sessions_left": left, "restarts": where.restarts, "has_link": where.has_link}


def table(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    rows = []
    for fault in dict.fromkeys(trial.fault for trial in trials):
        own = [trial for trial in trials if trial.fault == fault]
        again = [trial.again_s for trial in own if trial.again_s is not None]
        rows.append(
            {
                "fault": fault,
                "times": len(own),
                "resumed": dict(Counter(how for trial in own for how in trial.resumed)),
                "exact": sum(trial.is_exact for trial in own),
                "as told": sum(trial.is_told for trial in own),
                "missing": sum(trial.missing for trial in own),
                "doubled": sum(trial.doubled for trial in own),
                "differ": sum(trial.differ for trial in own),
                "again50_s": round(statistics.median(again), 2) if again else None,
                "again_max_s": max(again, default=None),
            }
        )
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Returns 1 if an outcome was not as reported."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=(__doc__ or "").split(":")[0])
    add = parser.add_argument
    add("--model", default="nano", help="(default %(default)s)")
    add("--data", type=Path, required=True, help="a folder with eval/, the recordings that are spoken")
    add("--times", type=int, default=200, help="sessions with a fault (default %(default)s)")
    add("--together", type=int, default=5, help="sessions at a time (default %(default)s)")
    add("--batch-sizes", default="4", help="batch sizes of the server (default %(default)s)")
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=RESULTS, help="(default %(default)s)")
    given = parser.parse_args(arguments)
    trials, server = asyncio.run(run(given))
    left = server["sessions_left"]
    rows = table(trials)
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    wrong = [trial for trial in trials if not trial.is_told]
    for trial in wrong:
        print(f"WRONG: {trial}")
    print(f"{len(trials) - len(wrong)} of {len(trials)} as reported; {left} sessions left at the server")
    if not server["has_link"]:
        print("no link was taken down: this user may not make network namespaces")
    report = {
        "arguments": {name: str(value) for name, value in vars(given).items() if name not in ("data", "out")},
        "rows": rows,
        "wrong": [asdict(trial) for trial in wrong],
    }
    write_report(given.out, server | report)
    return 1 if wrong or left else 0


if __name__ == "__main__":
    sys.exit(main())
