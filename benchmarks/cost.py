"""The cost of a stream at full size: `python -m benchmarks.cost`.

For encode and decode, each dtype and number of sessions, measures in turns: a step of that many sessions (with full
rings), and the sliding window at the same latency, as that many windows of the stock model in one batch; then the stock
model on a whole recording. Times are seconds of compute per second of audio of one session: below 1 the device keeps up
with all sessions. `floor` is the lower bound of a step: the longer of reading the weights and the sessions' state once
at memory bandwidth, and of computing the window's products at the speed of a large product, both measured here. `in
line` is the run-queue delay as a share of the time: if it is not near 0, another program ran and the figures are
unreliable.

On CUDA a step is the captured graph that the server replays, including its copies from and to the host, and the number
of sessions doubles until a step takes as long as its chunk.
"""

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import NeuCodecConfig, NeuCodecModel

from benchmarks.common.surroundings import RESULTS_FOLDER, waited_s, write_report
from benchmarks.fidelity.sliding_window import decode_geometry, encode_geometry
from neucodec_streaming import StreamConfig, load_codec
from neucodec_streaming.codec import Codec
from neucodec_streaming.config import CODEBOOK_SIZE, FRAME_MS, INPUT_HOP, TOKENS_PER_SECOND
from neucodec_streaming.engine.cuda_graph import Captures, GraphedStep
from neucodec_streaming.layers.mel import offline_features
from neucodec_streaming.layers.step import tensors_of
from neucodec_streaming.stepper import Stepper

RESULTS = RESULTS_FOLDER
KINDS = ("encode", "decode")
SESSIONS = (1, 4, 8, 16)
DTYPES = {"cpu": ("float32", "bfloat16"), "cuda": ("float32", "float16", "bfloat16")}
PARTS = {
    "encode": ("semantic_encoder", "semantic_adapter", "acoustic_encoder", "fc_encoder", "quantizer"),
    "decode": ("quantizer", "acoustic_decoder"),
}
INSTRUCTION_SETS = {"avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "asimd", "bf16"}
OFFLINE_SECONDS = 10
TURN_S = 0.5
"""A turn of one way repeats its call until this time has passed."""
BANDWIDTH_BYTES = 1 << 30
GEMM_SIZE = {"cpu": 2048, "cuda": 8192}
RATE_CALLS = 5
COLUMNS = {
    "dtype": 8, "kind": 6, "sessions": 8, "step ms": 8, "rtf": 7, "/session": 8, "window": 8, "ours/window": 11,
    "of minima": 9, "floor": 7, "step/floor": 10, "floor is": 10, "in line": 7,
}  # fmt: skip

TimedCall = Callable[[], object]


@dataclass(frozen=True)
class CostTarget:
    """An upper limit for a figure of a row."""

    kind: str
    sessions: int
    figure: str
    most: float
    dtypes: tuple[str, ...]


TARGETS = (
    CostTarget("decode", 8, "ratio", 0.2, ("float32", "bfloat16")),
    CostTarget("decode", 1, "ratio", 0.5, ("float32", "bfloat16")),
    CostTarget("encode", 1, "ratio", 0.1, ("float32", "bfloat16")),
    CostTarget("decode", 1, "rtf", 0.4, ("bfloat16",)),
    CostTarget("encode", 1, "rtf", 1.0, ("bfloat16",)),
)


def streamed(codec: Codec, kind: str, sessions: int) -> TimedCall:
    """Returns a call of one steady step of `sessions` sessions, all older than their context."""
    stepper = _stepper(codec, kind)
    config = stepper.config
    state = stepper.new_state(sessions)
    state.position.fill_(2 * config.context_frames)
    x = noise(kind, (sessions, *stepper.window_shape))
    rows = torch.tensor([range(sessions), [config.window_frames] * sessions, [config.chunk_frames] * sessions])
    if codec.device.type == "cuda":
        graph = GraphedStep(stepper, state, x, rows, Captures(codec.device), steady=True)
        return lambda: graph.launch().wait()
    return partial(stepper.step, x, state, *rows)


def offline(codec: Codec, kind: str, rows: int, frames: int) -> TimedCall:
    model = codec.model
    if kind == "decode":
        return partial(model.decode, noise(kind, (rows, 1, frames)).to(codec.device))
    dtype = model.fc_encoder.weight.dtype
    pcm = noise(kind, (rows, (frames + 1) * INPUT_HOP)).to(codec.device)
    return lambda: model.encode(pcm[:, None].to(dtype), offline_features(pcm).to(dtype))


def window_frames(kind: str, config: StreamConfig) -> int:
    return (encode_geometry(config) if kind == "encode" else decode_geometry(config)).frames


def timed(ways: dict[str, Callable[[], TimedCall]], turns: int, budget_s: float) -> dict[str, list[float]]:
    """Returns the seconds of each way's calls after a warm-up, none if it does not fit into the device's memory. The
    ways take turns, at least once, until the budget is spent.
    """
    calls: dict[str, TimedCall] = {}
    for name, make in ways.items():
        try:
            calls[name] = make()
            calls[name]()
        except RuntimeError as error:  # includes torch.OutOfMemoryError, and cuDNN's equivalent
            said = str(error)
            if not isinstance(error, torch.OutOfMemoryError) and "memory" not in said and "CUDNN_STATUS" not in said:
                raise
            calls.pop(name, None)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    begin_s = time.perf_counter()
    for _ in range(turns):
        for name, call in calls.items():
            turn_ends_s = time.perf_counter() + TURN_S
            seconds[name].append(_seconds(call))
            while time.perf_counter() < turn_ends_s:
                seconds[name].append(_seconds(call))
        if time.perf_counter() - begin_s > budget_s:
            break
    return seconds


@dataclass(frozen=True)
class Floor:
    """The lower bound of a step at the device's speeds."""

    weight_bytes: int
    state_bytes: int
    """Per session."""
    operations: float
    """Per session; a multiplication and an addition are two. Attention over the context is left out."""
    bytes_per_s: float
    operations_per_s: float

    def seconds(self, sessions: int) -> dict[str, float]:
        read = self.weight_bytes + sessions * self.state_bytes
        return {"bytes": read / self.bytes_per_s, "operations": sessions * self.operations / self.operations_per_s}


def floor_of(codec: Codec, kind: str, bytes_per_s: float, operations_per_s: float) -> Floor:
    stepper = _stepper(codec, kind)
    parameters = itertools.chain(*(getattr(codec.model, part).parameters() for part in PARTS[kind]))
    with FlopCounterMode(display=False) as counter:
        offline(codec, kind, 1, stepper.config.window_frames)()
    return Floor(
        weight_bytes=sum(parameter.nbytes for parameter in parameters),
        state_bytes=sum(tensor.nbytes for tensor in tensors_of(stepper.new_state(1))),
        operations=counter.get_total_flops(),
        bytes_per_s=bytes_per_s,
        operations_per_s=operations_per_s,
    )


def memory_rate(device: torch.device, size_bytes: int = BANDWIDTH_BYTES) -> float:
    """Returns bytes per second of reading: the best of a few sums of a tensor larger than any cache."""
    x = torch.ones(size_bytes // 4, device=device)
    x.sum()
    return x.nbytes / min(_seconds(x.sum) for _ in range(RATE_CALLS))


def product_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Returns operations per second, the best of a few calls."""
    x = torch.randn(size, size, device=device).to(dtype)
    product = partial(torch.mm, x, x)
    product()
    return 2 * size**3 / min(_seconds(product) for _ in range(RATE_CALLS))


@torch.inference_mode()
def measure(codec: Codec, kind: str, given: argparse.Namespace, bytes_per_s: float) -> Iterator[dict[str, Any]]:
    """Yields a row for each number of sessions; by default they double until a step takes as long as its chunk."""
    dtype = codec.model.fc_encoder.weight.dtype
    floor = floor_of(codec, kind, bytes_per_s, product_rate(codec.device, dtype, GEMM_SIZE[codec.device.type]))
    config = codec.default_config
    chunk_s = config.chunk_frames * FRAME_MS / 1000
    window_s = 0.0  # per session, as measured in the previous batch
    for sessions in given.sessions or (2**doublings for doublings in itertools.count()):
        ways = {"step": partial(streamed, codec, kind, sessions)}
        if 2 * window_s * sessions <= given.budget_s:
            ways["window"] = partial(offline, codec, kind, sessions, window_frames(kind, config))
        begin_s, waited_before_s = time.perf_counter(), waited_s(os.getpid())
        seconds = timed(ways, given.turns, given.budget_s)
        in_line = (waited_s(os.getpid()) - waited_before_s) / (time.perf_counter() - begin_s)
        if "step" not in seconds:
            return
        row = _row(seconds, floor, sessions, chunk_s) | {"in_line": in_line}
        if row["window"]:
            window_s = row["window"]["median_s"] / sessions
        yield {"dtype": _name(dtype), "kind": kind, "sessions": sessions} | row
        if not given.sessions and row["rtf"] >= 1:
            return


def _row(seconds: dict[str, list[float]], floor: Floor, sessions: int, chunk_s: float) -> dict[str, Any]:
    step, window = (_summary(seconds[name]) if name in seconds else None for name in ("step", "window"))
    assert step is not None
    floors = floor.seconds(sessions)
    bound = max(floors, key=lambda name: floors[name])
    return {
        "step": step,
        "window": window,
        "rtf": step["median_s"] / chunk_s,
        "rtf_per_session": step["median_s"] / chunk_s / sessions,
        "window_rtf": window and window["median_s"] / chunk_s,
        "ratio": window and step["median_s"] / window["median_s"],
        "ratio_of_minima": window and step["min_s"] / window["min_s"],
        "floor_rtf": floors[bound] / chunk_s,
        "floor_is": bound,
        "step_over_floor": step["median_s"] / floors[bound],
        "floor_s": floors,
    }


@torch.inference_mode()
def measure_offline(codec: Codec, kind: str, given: argparse.Namespace) -> dict[str, Any]:
    frames = OFFLINE_SECONDS * TOKENS_PER_SECOND
    times = timed({"offline": partial(offline, codec, kind, 1, frames)}, given.turns, given.budget_s)
    summary = _summary(times["offline"])
    dtype = _name(codec.model.fc_encoder.weight.dtype)
    return {"dtype": dtype, "kind": kind, "rtf": summary["median_s"] / OFFLINE_SECONDS} | summary


def check_list(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns each target in each of its dtypes: the limit, the measured value (or None), and whether it is met."""
    found = {(row["dtype"], row["kind"], row["sessions"]): row for row in rows}
    checks = []
    for target in TARGETS:
        for dtype in target.dtypes:
            measured = found.get((dtype, target.kind, target.sessions), {}).get(target.figure)
            met = None if measured is None else measured <= target.most
            what = f"{target.figure} of {target.kind}, sessions: {target.sessions}"
            checks.append({"target": what, "dtype": dtype, "most": target.most, "measured": measured, "met": met})
    return checks


def real_time_sessions(rows: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Returns, for each kind and dtype, the largest measured batch whose step takes less than its chunk, or 0."""
    most: dict[str, int] = {}
    for row in rows:
        name = f"{row['kind']} {row['dtype']}"
        most[name] = max(most.get(name, 0), row["sessions"] if row["rtf"] < 1 else 0)
    return most


def show(row: dict[str, Any]) -> None:
    ratios = ["-" if row[name] is None else f"{row[name]:.3f}" for name in ("window_rtf", "ratio", "ratio_of_minima")]
    step = [f"{row['step']['median_s'] * 1000:.1f}", f"{row['rtf']:.3f}", f"{row['rtf_per_session']:.4f}"]
    cells = [row["dtype"], row["kind"], str(row["sessions"]), *step, *ratios]
    cells += [f"{row['floor_rtf']:.3f}", f"{row['step_over_floor']:.2f}", row["floor_is"], f"{row['in_line']:.2f}"]
    print(" ".join(f"{cell:>{width}}" for cell, width in zip(cells, COLUMNS.values(), strict=True)), flush=True)


def about(device: torch.device) -> dict[str, Any]:
    """Returns the device properties that write_report does not add."""
    cpuinfo = Path("/proc/cpuinfo")
    words = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    gpu = {"device": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    return gpu | {"instruction_sets": sorted(words & INSTRUCTION_SETS), "threads": torch.get_num_threads()}


@contextmanager
def model_folder(given: str | None) -> Iterator[str]:
    """Yields `given`, or a temporary model of full size with random weights."""
    if given is not None:
        yield given
        return
    with TemporaryDirectory() as folder:
        torch.manual_seed(0)
        NeuCodecModel(NeuCodecConfig()).to(torch.bfloat16).save_pretrained(folder)
        yield folder


def _stepper(codec: Codec, kind: str) -> Stepper:
    return codec.encoder() if kind == "encode" else codec.decoder()


def noise(kind: str, shape: tuple[int, ...]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    if kind == "decode":
        return torch.randint(CODEBOOK_SIZE, shape, generator=generator)
    return 0.1 * torch.randn(shape, generator=generator)


def _seconds(call: TimedCall) -> float:
    begin_s = time.perf_counter()
    call()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - begin_s


def _summary(seconds: list[float]) -> dict[str, float]:
    return {"median_s": statistics.median(seconds), "min_s": min(seconds), "calls": len(seconds)}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time per second of audio: streamed, sliding window, offline.")
    parser.add_argument("--model", help="a folder, bundled name or hub id; default: full size with random weights")
    parser.add_argument("--device", choices=DTYPES, default="cpu")
    parser.add_argument("--dtypes", nargs="+", help="default: float32 and bfloat16, and on CUDA float16")
    parser.add_argument("--sessions", type=int, nargs="+", help="default: 1 4 8 16; on CUDA doubling to real time")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--turns", type=int, default=7, help="number of alternating turns of step and window")
    parser.add_argument("--budget-s", type=float, default=60.0, help="time for the turns of one row; longer ones: '-'")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/cost-MODEL.json")
    given = parser.parse_args()
    given.dtypes = given.dtypes or DTYPES[given.device]
    given.sessions = given.sessions or (SESSIONS if given.device == "cpu" else None)
    name = Path(given.model).name if given.model else "full-size"
    given.out = given.out or RESULTS / f"cost-{name}{'' if given.device == 'cpu' else '-cuda'}.json"
    return given


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    device = torch.device(given.device)
    bytes_per_s = memory_rate(device)
    rows, whole = [], []
    with model_folder(given.model) as folder:
        print(" ".join(f"{name:>{width}}" for name, width in COLUMNS.items()), "  (seconds per second of audio)")
        for dtype in given.dtypes:
            codec = load_codec(folder, given.device, getattr(torch, dtype))
            for kind in KINDS:
                for row in measure(codec, kind, given, bytes_per_s):
                    rows.append(row)
                    show(row)
                    write_report(given.out, about(device) | {"rows": rows})  # keeps the rows of an interrupted run
                whole.append(measure_offline(codec, kind, given))
                print(f"{dtype:>8} {kind:>6}: offline, {OFFLINE_SECONDS} s in one: {whole[-1]['rtf']:.3f}", flush=True)
            del codec  # one dtype's weights at a time
    checks = check_list(rows)
    for check in checks:
        measured = "not measured" if check["measured"] is None else f"{check['measured']:.3f}"
        verdict = {None: "-", True: "met", False: "MISSED"}[check["met"]]
        print(f"{check['target']:32} {check['dtype']:>8}: {measured} (at most {check['most']}) {verdict}")
    report = about(device) | {
        "bytes_per_s": bytes_per_s,
        "rows": rows,
        "offline": whole,
        "targets": checks,
        "real_time_sessions": real_time_sessions(rows),
    }
    print(f"real-time sessions: {report['real_time_sessions']}")
    write_report(given.out, report)


if __name__ == "__main__":
    main()
