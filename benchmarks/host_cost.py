"""The host's cost of a GPU worker, and the device utilization that it allows: `python -m benchmarks.host_cost`.

Runs the server's own worker over a stand-in device, on which a captured step takes constant time and returns noise.
Twice as many sessions as a batch has rows are fed as fast as their output arrives, so that only the host delays the
device. The ways, in turns:

    in series  one step at a time, wire formats in the process that drives the device
    apart      one step at a time, wire formats in a separate process
    in flight  two steps, wire formats in the process that drives the device
    both       two steps, wire formats in a separate process (the server's way on CUDA)
    before     the worker of an earlier checkout, with --base CHECKOUT (commit 6c4c013)

`rate` is rows per second; `device` is the utilization of the device; `drives` and `converts` are the processor time per
row in the process that drives the device and in the process of the formats; `packet` is the increase of both for each
additional packet, if a chunk arrives in five. Needs /proc (Linux).
"""

import argparse
import os
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.processes import family
from benchmarks.common.surroundings import RESULTS_FOLDER, write_report
from benchmarks.host_cost_before import WordsBefore, serve_before
from neucodec_streaming import StreamConfig, load_codec
from neucodec_streaming.engine.cuda_graph import TURNS
from neucodec_streaming.engine.engine import Engine, pools_of
from neucodec_streaming.engine.runner import Runner
from neucodec_streaming.protocol.query import SessionRequest, session_request
from neucodec_streaming.server.model import Model
from neucodec_streaming.server.settings.fields import Settings
from neucodec_streaming.server.workers.converter import converter_before
from neucodec_streaming.server.workers.ipc import Unpacker, packed
from neucodec_streaming.server.workers.messages import (
    CommandKind,
    EventKind,
    SessionSpec,
)
from neucodec_streaming.server.workers.worker import work

CUT = (5, 5)
CONFIG = StreamConfig(*CUT)
FED_AHEAD_CHUNKS = 12
WARM_UP_S = 0.5
CASES = {
    "decode": session_request("decode"),
    "encode": session_request("encode"),
    "decode to 8 kHz mu-law": session_request("decode", output_format="mulaw", output_rate=8000),
}


class Way(NamedTuple):
    """`depth` is the steps in flight; `is_apart` gives wire formats a process; `base` is an earlier checkout."""

    depth: int
    is_apart: bool
    base: Path | None = None


class Words:
    """The messages between driver and worker."""

    packed, unpacker = staticmethod(packed), Unpacker
    open, feed, output, ended = CommandKind.OPEN, CommandKind.FEED, EventKind.OUTPUT, EventKind.ENDED

    def spec(self, request: SessionRequest, chunk_frames: int, lookahead_frames: int) -> SessionSpec:
        return SessionSpec(request.kind, StreamConfig(chunk_frames, lookahead_frames), request.input, request.output)


WAYS = {"in series": Way(1, False), "apart": Way(1, True), "in flight": Way(2, False), "both": Way(2, True)}


class StandInDevice:
    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._free_s = 0.0

    def launch(self) -> float:
        """Starts a step; returns its end time."""
        self._free_s = max(self._free_s, time.perf_counter()) + self._step_s
        return self._free_s


class StandInBuffers:
    def __init__(self, x: Tensor, y: Tensor, rows: int) -> None:
        self.x, self.y = x.clone(), y
        self.rows = torch.zeros(3, rows, dtype=torch.int64)
        self.done_s = 0.0

    def is_done(self) -> bool:
        return time.perf_counter() >= self.done_s

    def wait(self) -> np.ndarray:
        time.sleep(max(0.0, self.done_s - time.perf_counter()))
        return self.y.numpy()


class StandInGraph:
    def __init__(self, device: StandInDevice, x: Tensor, y: Tensor, rows: int) -> None:
        self._device = device
        self._turns = [StandInBuffers(x, y, rows) for _ in range(TURNS)]

    @property
    def next(self) -> StandInBuffers:
        return self._turns[0]

    def launch(self) -> StandInBuffers:
        buffers = self._turns.pop(0)
        self._turns.append(buffers)
        buffers.done_s = self._device.launch()
        return buffers


class StandInRunner(Runner):
    def __init__(self, kind: str, rows: int, step_s: float, depth: int) -> None:
        pools = list(pools_of(kind, CONFIG).values())
        super().__init__(load_codec("nano", kinds=[kind]), pools, 2 * rows, (rows,))
        self._depth, device, rng = depth, StandInDevice(step_s), np.random.default_rng(0)
        for pool in pools:
            stepper = self._steppers[pool]
            x = torch.zeros(rows, *stepper.window_shape, dtype=torch.float32 if kind == "encode" else torch.int64)
            for steady in (False, True):
                frames = CONFIG.chunk_frames if steady else CONFIG.window_frames + CONFIG.synthesis_lag_frames
                y = torch.from_numpy(rng.normal(0, 0.1, (rows, frames * stepper.output_hop)).astype(np.float32))
                graph: Any = StandInGraph(device, x, y if kind == "decode" else y.abs().long(), rows)
                self._graphs[pool, rows, steady] = graph

    @property
    def depth(self) -> int:
        return self._depth


def load_stand_in(kind: str, rows: int, step_s: float, depth: int, settings: Settings) -> tuple[list[Engine], Model]:
    runner = StandInRunner(kind, rows, step_s, depth)
    return [Engine(runner, 0.0, 1e9)], Model("constant", {"default": CONFIG}, "default", output_rate=24000)


def serve(socket: socket.socket, way: Way, kind: str, rows: int, step_s: float) -> None:
    if way.base is not None:
        serve_before(way.base, socket, StandInDevice(step_s), kind, CUT, rows)
    if way.is_apart:
        socket = converter_before(socket)
    torch.set_num_threads(1)
    work([socket], Settings(), partial(load_stand_in, kind, rows, step_s, way.depth), forks=False)
    os._exit(0)  # some of PyTorch's libraries report leaks during interpreter shutdown


class Driver:
    """Sends a session its next chunk for each output, as the event loop does."""

    def __init__(self, socket: socket.socket, words: Any, request: SessionRequest, packets: int) -> None:
        self._socket, self._words, self._unpacker = socket, words, words.unpacker()
        hop_bytes = request.input.hop * request.input.unit_bytes
        chunk = np.random.default_rng(0).integers(0, 1000, CONFIG.chunk_frames * hop_bytes // 2).astype("<u2").tobytes()
        size = len(chunk) // packets
        self._chunk = [chunk[start : start + size] for start in range(0, len(chunk), size)]
        self._request = request
        self._feeds: dict[tuple[int, ...], bytes] = {}  # by sessions, since the same ones are often stepped together

    def receive(self) -> list[Any]:
        messages: list[Any] = []
        while not messages:
            messages = self._unpacker.feed(self._socket.recv(1 << 20))
        return messages

    def open(self, sessions: int) -> None:
        spec, words = self._words.spec(self._request, *CUT), self._words
        commands = [(number, words.open, spec) for number in range(1, sessions + 1)]
        for _ in range(FED_AHEAD_CHUNKS):
            commands += [command for number in range(1, sessions + 1) for command in self._feed(number)]
        self._socket.sendall(words.packed(commands))

    def run(self, seconds: float) -> int:
        """Returns the number of rows whose output has arrived."""
        words, count, end_s = self._words, 0, time.perf_counter() + seconds
        while time.perf_counter() < end_s:
            for report in self.receive():
                numbers = tuple(number for number, kind, _ in report.events if kind is words.output)
                assert not any(kind is words.ended for _, kind, _ in report.events), report.events
                if numbers not in self._feeds:
                    feeds = [command for number in numbers for command in self._feed(number)]
                    self._feeds[numbers] = words.packed(feeds)
                self._socket.sendall(self._feeds[numbers])
                count += len(numbers)
        return count

    def _feed(self, number: int) -> Iterator[tuple[int, Any, bytes]]:
        return ((number, self._words.feed, packet) for packet in self._chunk)


def cpu_s(pid: int) -> float:
    stats = [task.read_text().split() for task in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(stat[0]) for stat in stats) / 1e9


@contextmanager
def driven(way: Way, request: SessionRequest, rows: int, step_s: float, packets: int) -> Iterator[tuple[Driver, int]]:
    """Yields the driver of a new worker, and its process id."""
    processes = get_context("spawn")
    ours, its = socket.socketpair()
    process = processes.Process(target=serve, args=(its, way, request.kind, rows, step_s))
    process.start()
    its.close()
    try:
        driver = Driver(ours, Words() if way.base is None else WordsBefore(way.base), request, packets)
        (loaded,) = driver.receive()
        assert type(loaded).__name__ == "Loaded", loaded
        yield driver, loaded.pids[0]
    finally:
        ours.close()
        process.join(20)
        process.kill()


def turn(way: Way, case: str, given: argparse.Namespace, packets: int = 1) -> dict[str, float]:
    rows, step_s = given.rows, given.step_ms / 1000
    with driven(way, CASES[case], rows, step_s, packets) as (driver, pid):
        driver.open(2 * rows)
        driver.run(WARM_UP_S)
        others = [one for one in family(pid) if one != pid]
        before = time.perf_counter(), cpu_s(pid), sum(map(cpu_s, others))
        count = driver.run(given.seconds)
        after = time.perf_counter(), cpu_s(pid), sum(map(cpu_s, others))
    took_s, drives_s, converts_s = (end - begin for begin, end in zip(before, after, strict=True))
    return {
        "rate": count / took_s,
        "device": count / rows * step_s / took_s,
        "drives": drives_s / count * 1e6,
        "converts": converts_s / count * 1e6,
    }


def medians(turns: list[dict[str, float]]) -> dict[str, float]:
    return {column: round(statistics.median(one[column] for one in turns), 3) for column in turns[0]}


def measure(case: str, ways: dict[str, Way], given: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    in_packets: dict[str, list[dict[str, float]]] = {name: [] for name in (next(iter(ways)), "both")}
    ratios = []
    for _ in range(given.turns):
        for name, way in ways.items():
            found[name].append(turn(way, case, given))
        ratios.append({name: found["both"][-1]["rate"] / found[name][-1]["rate"] for name in ways})
        for name in in_packets:
            in_packets[name].append(turn(ways[name], case, given, CONFIG.chunk_frames))
    row: dict[str, Any] = {"case": case, **{name: medians(turns) for name, turns in found.items()}}
    for name, turns in in_packets.items():
        added = {column: medians(turns)[column] - row[name][column] for column in ("drives", "converts")}
        row[name]["packet"] = {name: round(us / (CONFIG.chunk_frames - 1), 3) for name, us in added.items()}
    return row | {"ratio": medians(ratios)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--rows", type=int, default=256, help="rows of a step (default %(default)s)")
    add("--step-ms", type=float, default=6.0, help="step time (default %(default)s)")
    add("--seconds", type=float, default=2.0, help="duration of a turn (default %(default)s)")
    add("--turns", type=int, default=3, help="turns of each way (default %(default)s)")
    add("--cases", nargs="+", choices=CASES, default=list(CASES))
    add("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="(default all)")
    add("--base", type=Path, help="a folder with commit 6c4c013, to compare with")
    add("--out", type=Path, default=RESULTS_FOLDER / "host_cost.json")
    given = parser.parse_args()
    ways = {} if given.base is None else {"before": Way(1, False, given.base.resolve())}
    ways |= {name: WAYS[name] for name in (*given.ways, "both")}
    table = []
    for case in given.cases:
        row = measure(case, ways, given)
        table.append(row)
        for name in ways:
            cells = row[name]
            packet = "".join(f" packet {key} {us:.1f} us" for key, us in cells.get("packet", {}).items())
            print(
                f"{case:24} {name:10} {cells['rate']:8.0f} rows/s  device {cells['device']:4.0%}"
                f"  drives {cells['drives']:5.1f} us  converts {cells['converts']:5.1f} us {packet}",
                flush=True,
            )
        print(f"{case}: both / " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in row["ratio"].items()), flush=True)
    write_report(given.out, {"rows": given.rows, "step_ms": given.step_ms, "turns": given.turns, "table": table})


if __name__ == "__main__":
    main()
