"""Live coding on a CPU compared with common practice: `python -m benchmarks.cpu_cost`.

Decoders: NeuTTS's sliding window (50 frames back, 25 new, 5 ahead) over the offline model in float32, and over an
export of the decoder in onnxruntime, in float32 and int8 (dynamic); and our steps in each dtype. Encoders: the offline
model in float32 on a window of 4 s for each chunk, and our steps. Figures are median milliseconds of compute per second
of one session's audio, by batch size, and the time to first audio, which is the wait for its tokens plus the
computation. Weights are random, at full size, unless a model is given. `in line` is the run-queue delay as a share of
the time: if it is not near 0, another program ran.

`--others CORES` runs another program beside the measurement; its rows are kept apart. `--ways` measures some of the
ways; the result file keeps the other rows of the same model, machine and commit.
`--profile` instead prints where the time of our step goes, by operation and shape of the weight (N x K), on one core.
"""

import argparse
import gc
import json
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks import onnx_decoder
from benchmarks.common.other_program import other_program
from benchmarks.common.surroundings import RESULTS_FOLDER, waited_s, write_report
from benchmarks.cost import TimedCall, about, model_folder, noise, offline
from benchmarks.fidelity.sliding_window import NEUTTS, NEUTTS_LATENCY_MS
from neucodec_streaming import load_codec
from neucodec_streaming.codec import Codec
from neucodec_streaming.config import TOKENS_PER_SECOND
from neucodec_streaming.engine.traced_step import TracedStep, packed_weights
from neucodec_streaming.loading import load_model

RESULTS = RESULTS_FOLDER / "cpu-cost.json"
SESSIONS = (1, 4, 8, 16)
DTYPES = ("float32", "bfloat16", "int8")
WAYS = (*DTYPES, "neutts", "window")
"""Our dtypes; NeuTTS's window over decoders; the window of the offline encoder."""
KINDS = ("decode", "encode")
PROFILED_STEPS = 10
SHOWN_PARTS = 15
PACKED_AXES = 5
OTHERS_S = 600
"""The other program ends by itself after this time."""
ENCODE_WINDOW_FRAMES = 4 * TOKENS_PER_SECOND
COMMAND = "python -m benchmarks.cpu_cost"
RANDOM = "full size, random weights"
KEY = ("kind", "way", "threads", "sessions", "others")
TARGETS = {"decode, 1 session, of a core": 0.2, "decode, 8 sessions, of a core each": 0.1, "encode, of a core": 0.7}
RATIOS = {"decode: onnxruntime int8 over ours": 3.0, "encode: offline float32 over ours": 10.0}
"""Minimum ratios."""


def step(codec: Codec, kind: str, sessions: int) -> TimedCall:
    """Returns a call of one steady step of `sessions` sessions, as the server replays it."""
    stepper = codec.encoder() if kind == "encode" else codec.decoder()
    config, state = stepper.config, stepper.new_state(sessions)
    state.position.fill_(2 * config.context_frames)
    x = noise(kind, (sessions, *stepper.window_shape))
    rows = torch.tensor([range(sessions), [config.window_frames] * sessions, [config.chunk_frames] * sessions])
    packed = packed_weights(partial(stepper.step, x, state, *rows))
    return partial(TracedStep(stepper, state, x, rows, packed, steady=True), x, rows)


def timed(call: TimedCall, budget_s: float) -> dict[str, float]:
    """Returns the median seconds of a call after a warm-up, over all calls that start within the budget."""
    call()
    seconds: list[float] = []
    begin_s, waited_before_s = time.perf_counter(), waited_s(os.getpid())
    while not seconds or time.perf_counter() - begin_s < budget_s:
        start_s = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start_s)
    in_line = (waited_s(os.getpid()) - waited_before_s) / (time.perf_counter() - begin_s)
    return {"call_s": statistics.median(seconds), "calls": len(seconds), "in_line": in_line}


def ours(folder: str, dtype: str, kind: str, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    codec = load_codec(folder, dtype=dtype, kinds=(kind,), threads=torch.get_num_threads())
    codec.pack()
    config = codec.default_config
    wait_ms = config.encode_latency_ms if kind == "encode" else config.decode_latency_ms
    for sessions in given.sessions:
        found = timed(step(codec, kind, sessions), given.budget_s)
        yield row(kind, f"ours {dtype}", sessions, config.chunk_frames, wait_ms, found)


def neutts(folder: str, files: dict[str, Path], given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields rows of NeuTTS's window over the offline decoder, in torch and in onnxruntime."""
    model = load_codec(folder, kinds=("decode",))
    runners = {
        f"onnxruntime {name}": onnx_decoder.runner(file, torch.get_num_threads()) for name, file in files.items()
    }
    for sessions in given.sessions:
        codes = noise("decode", (sessions, 1, NEUTTS.frames)).numpy()
        calls = {"offline float32": offline(model, "decode", sessions, NEUTTS.frames)}
        calls |= {name: partial(run, codes) for name, run in runners.items()}
        for name, call in calls.items():
            yield row("decode", name, sessions, NEUTTS.new, NEUTTS_LATENCY_MS, timed(call, given.budget_s))


def row(kind: str, name: str, sessions: int, frames: int, wait_ms: float, found: dict[str, float]) -> dict[str, Any]:
    """Returns a way's row: a call commits `frames` of each session, and the first output waits `wait_ms` for input."""
    per_second = 1000 * found["call_s"] * TOKENS_PER_SECOND / frames / sessions
    first_ms = wait_ms + 1000 * found["call_s"]
    parts = {"kind": kind, "way": name, "threads": torch.get_num_threads(), "sessions": sessions}
    return parts | {"ms_per_s": per_second, "first_output_ms": first_ms} | found


def parts(call: TimedCall) -> dict[str, float]:
    """Returns the milliseconds of a step by operation, the least of several steps each."""
    least: dict[str, float] = {}
    for _ in range(PROFILED_STEPS):
        with torch.profiler.profile(record_shapes=True) as profiled:
            call()
        times: dict[str, float] = defaultdict(float)
        for event in profiled.key_averages(group_by_input_shape=True):
            times[_name(event)] += event.self_cpu_time_total / 1000
        least = {name: min(ms, least.get(name, ms)) for name, ms in times.items()}
    return dict(sorted(least.items(), key=lambda part: -part[1]))


def _name(event: Any) -> str:
    """An operation, with the shape of its int8 weight."""
    name = event.key.removeprefix("neucodec::").removeprefix("aten::")
    for shape in event.input_shapes:
        if len(shape) == PACKED_AXES:
            panels, taps, groups, panel, group = shape
            return f"{name} {panels * panel} x {taps * groups * group}"
    return name


def show_parts(folder: str, given: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    for dtype in (dtype for dtype in DTYPES if dtype in given.ways):
        for kind in KINDS:
            codec = load_codec(folder, dtype=dtype, kinds=(kind,), threads=1)
            codec.pack()
            for sessions in given.sessions:
                call = step(codec, kind, sessions)
                found = timed(call, given.budget_s)
                print(f"{kind} {dtype}, {sessions} sessions: {1000 * found['call_s']:.1f} ms a step", flush=True)
                for name, ms in list(parts(call).items())[:SHOWN_PARTS]:
                    print(f"{ms:10.2f} ms  {name}", flush=True)


def measured(folder: str, files: dict[str, Path], given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for threads in given.threads:
        torch.set_num_threads(threads)
        for dtype in (dtype for dtype in DTYPES if dtype in given.ways):
            for kind in KINDS:
                yield from ours(folder, dtype, kind, given)
                gc.collect()
        if "neutts" in given.ways:
            yield from neutts(folder, files, given)
        if "window" not in given.ways:
            continue
        codec = load_codec(folder, kinds=("encode",))
        found = timed(offline(codec, "encode", 1, ENCODE_WINDOW_FRAMES), given.budget_s)
        config = codec.default_config
        yield row("encode", "offline float32", 1, config.chunk_frames, config.encode_latency_ms, found)


def checks(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns each target of int8 on one core, with the measured value."""
    of = {
        (r["kind"], r["way"], r["sessions"]): r["ms_per_s"] / 1000
        for r in rows
        if r["threads"] == 1 and not r["others"]
    }
    mine, nothing = "ours int8", float("nan")
    shares = [of.get(key, nothing) for key in (("decode", mine, 1), ("decode", mine, 8), ("encode", mine, 1))]
    over = [
        of.get(("decode", "onnxruntime int8", 1), nothing) / shares[0],
        of.get(("encode", "offline float32", 1), nothing) / shares[2],
    ]
    found = [
        {"figure": name, "at_most": most, "measured": value, "met": value <= most}
        for (name, most), value in zip(TARGETS.items(), shares, strict=True)
    ]
    return found + [
        {"figure": name, "at_least": least, "measured": value, "met": value >= least}
        for (name, least), value in zip(RATIOS.items(), over, strict=True)
    ]


def kept_rows(out: Path, run: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows of an earlier run of the same model, machine and commit."""
    before = json.loads(out.read_text()) if out.exists() else {}
    return before["rows"] if all(before.get(name) == run[name] for name in ("model", "device", "commit")) else []


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder or bundled name; default: full size with random weights")
    parser.add_argument("--sessions", type=int, nargs="+", default=SESSIONS)
    parser.add_argument("--threads", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--others", type=float, default=0.0, metavar="CORES", help="load of another program")
    parser.add_argument("--profile", action="store_true", help="show the parts of our steps instead")
    parser.add_argument("--budget-s", type=float, default=1.0, help="measurement time of each row")
    parser.add_argument("--onnx", type=Path, help="folder of exports, which are created if missing; default: temporary")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    with (
        TemporaryDirectory() as temporary,
        model_folder(given.model) as folder,
        other_program(given.others, OTHERS_S),
    ):
        if given.profile:
            show_parts(folder, given)
            return
        run = about(torch.device("cpu")) | {"command": COMMAND, "model": given.model or RANDOM}
        rows = kept_rows(given.out, run)
        files = {}
        if "neutts" in given.ways:
            exports = given.onnx or Path(temporary)
            exports.mkdir(parents=True, exist_ok=True)
            files = onnx_decoder.export(load_model(folder, torch.float32, ("decode",)), NEUTTS.frames, exports)
        for one in measured(folder, files, given):
            one["others"] = given.others
            rows = [row for row in rows if any(row[name] != one[name] for name in KEY)] + [one]
            print(
                "{kind:>7} {way:>20} {threads:2} threads {sessions:3} sessions: {ms_per_s:8.1f} ms a second,"
                " first output after {first_output_ms:6.0f} ms (in line {in_line:.2f})".format(**one),
                flush=True,
            )
            write_report(given.out, run | {"rows": rows, "checks": checks(rows)})
    for check in checks(rows):
        print(check)


if __name__ == "__main__":
    main()
