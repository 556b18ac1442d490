"""The stages of the report, most important first.

Each runs in its own process, to which a CUDA error is confined, and yields findings as it goes: a name and a value. The
value `False` is a failure.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
from torch.nn.attention import sdpa_kernel
from torch.profiler import profile, supported_activities

from benchmarks.common.surroundings import ROOT
from benchmarks.roofline import rows_of
from neucodec_streaming import StreamConfig, load_codec
from neucodec_streaming.codec import Codec
from neucodec_streaming.config import CODEBOOK_SIZE, INPUT_RATE
from neucodec_streaming.engine.cuda_graph import Captures, GraphedStep
from neucodec_streaming.engine.runner import Runner
from neucodec_streaming.engine.scheduler import Pool
from neucodec_streaming.kernels import gpu
from neucodec_streaming.layers.attention import EXACT_WITH_MASKS
from neucodec_streaming.stepper import Stepper

Finding = tuple[str, Any]
KINDS = ("encode", "decode")
REPEATS = 9
MAX_KERNELS = 12
MAX_CLIENT_PROCESSES = 8
PYTHON = [sys.executable, "-m"]


class ReportSize(NamedTuple):
    """`model` is a name or folder, `rows` the batch sizes in ascending order, `live` kinds and numbers of sessions,
    `laws` what pytest runs.
    """

    model: str
    rows: tuple[int, ...]
    live: tuple[tuple[str, int], ...] = (("decode", 1000), ("encode", 250))
    live_s: float = 20.0
    config: StreamConfig = StreamConfig(prior_weight=0)
    laws: tuple[str, ...] = ("tests/streaming/test_laws.py", "tests/streaming/engine", "tests/server/test_on_cuda.py")


def machine(size: ReportSize) -> Iterator[Finding]:
    yield "device", torch.cuda.get_device_name()
    yield "torch, CUDA, cuDNN", [torch.__version__, torch.version.cuda, torch.backends.cudnn.version()]
    yield "free and total memory, bytes", list(torch.cuda.mem_get_info())
    yield "kernels", "torch's" if gpu.operations(torch.ones(1, device="cuda")) is None else "Triton's"
    count = 1 << (28 if size.rows[-1] > 16 else 10)
    x = torch.zeros(count, dtype=torch.float32, device="cuda")
    yield "bytes of memory read and written in a second", 2 * x.nbytes / _seconds(lambda: x.clone())
    side = 8192 if size.rows[-1] > 16 else 32
    for dtype in (torch.bfloat16, torch.float32):
        a = torch.ones(side, side, device="cuda").to(dtype)
        yield f"operations of a product in a second, {_name(dtype)}", 2 * side**3 / _seconds(partial(torch.mm, a, a))


def replay(size: ReportSize) -> Iterator[Finding]:
    """Checks that a replayed step equals the eager one bit for bit."""
    for dtype in ("float32", "bfloat16"):
        codec = load_codec(size.model, "cuda", dtype)
        pools = [Pool(kind, size.config) for kind in KINDS]
        runner = Runner(codec, pools, max(size.rows[:3]), size.rows[:3])
        begin_s = time.perf_counter()
        runner.warm_up()
        yield f"{dtype}: replayed equals eager", runner.depth == 2
        yield f"{dtype}: seconds of warming up", time.perf_counter() - begin_s


def laws(size: ReportSize) -> Iterator[Finding]:
    done = _run("pytest", "-q", "-p", "no:cacheprovider", *size.laws, NEUCODEC_TEST_DEVICE="cuda")
    yield "the tests pass", done.returncode == 0
    yield "their output", done.stdout.strip().splitlines()[-30:]


def against_cpu(size: ReportSize) -> Iterator[Finding]:
    """Compares each dtype on the GPU with float32 on the CPU: equal tokens, and audio decoded from equal tokens."""
    rng = np.random.default_rng(0)
    pcm = rng.normal(0, 0.1, 320 * 2 * size.config.window_frames).astype(np.float32)
    tokens = rng.integers(0, CODEBOOK_SIZE, 2 * size.config.window_frames).astype(np.uint16)
    wanted: dict[str, np.ndarray] = {}
    for device, dtype in (("cpu", "float32"), ("cuda", "float32"), ("cuda", "bfloat16"), ("cuda", "float16")):
        codec = load_codec(size.model, device, dtype)
        encoder, decoder = codec.encoder_stream(size.config), codec.decoder_stream(size.config)
        encoded = np.concatenate([encoder.feed(pcm), encoder.flush()])
        audio = np.concatenate([decoder.feed(tokens), decoder.flush()])
        if device == "cpu":
            wanted = {"tokens": encoded, "audio": audio}
            continue
        error = float(np.abs(audio - wanted["audio"]).max() / np.abs(wanted["audio"]).max())
        yield f"{dtype}: share of equal tokens", float((encoded == wanted["tokens"]).mean())
        yield f"{dtype}: largest error of the audio", error
        yield f"{dtype}: audio is finite", bool(np.isfinite(audio).all())
        if dtype == "float32":
            yield "float32 equals the CPU to 1e-3", error <= 1e-3


def attention(size: ReportSize) -> Iterator[Finding]:
    """Compares masked attention, by the kernels that steps may use, with float64 on the CPU."""
    generator = torch.Generator().manual_seed(0)
    frames, keys = size.config.window_frames, size.config.context_frames + size.config.window_frames
    query = torch.randn(3, 4, frames, 64, generator=generator)
    key, value = (torch.randn(3, 4, keys, 64, generator=generator) for _ in range(2))
    bias = torch.randn(3, 4, frames, keys, generator=generator)
    bias[:, :, :, : keys // 3] = -1e4  # keys before the start of the stream
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 4e-2)):
        on_host = [x.to(dtype) for x in (query, key, value, bias)]
        q, k, v, mask = (x.double() for x in on_host)
        wanted = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        q, k, v, mask = (x.to("cuda") for x in on_host)
        with sdpa_kernel(EXACT_WITH_MASKS):
            found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).cpu().double()
        error = float((found - wanted).abs().max() / wanted.abs().max())
        yield f"{_name(dtype)}: largest error of attention", error
        yield f"{_name(dtype)}: attention is right to {tolerance:g}", error <= tolerance


def kernels(size: ReportSize) -> Iterator[Finding]:
    """Yields the kernels of a steady step by their share of its time, with count and microseconds."""
    codec = load_codec(size.model, "cuda", "bfloat16")
    rows = size.rows[-1]
    for kind in KINDS:
        graph = _graph(codec, kind, size.config, rows)
        graph.launch().wait()
        with profile(activities=supported_activities()) as profiled:
            graph.launch().wait()
        found = sorted(profiled.key_averages(), key=lambda one: -one.self_device_time_total)
        yield f"{kind}, {rows} rows: kernels", sum(one.count for one in found if one.self_device_time_total)
        for place, one in enumerate(found[:MAX_KERNELS], start=1):
            yield f"{kind}, {rows} rows: {place}. {one.key[:60]}", [one.count, round(one.self_device_time_total, 1)]


def start_up(size: ReportSize) -> Iterator[Finding]:
    """Measures the time until every graph is captured, and the memory in use by then."""
    begin_s = time.perf_counter()
    codec = load_codec(size.model, "cuda", "bfloat16")
    yield "seconds of loading", time.perf_counter() - begin_s
    free_bytes = torch.cuda.mem_get_info()[0]
    begin_s = time.perf_counter()
    runner = Runner(codec, [Pool(kind, size.config) for kind in KINDS], size.rows[-1], size.rows)
    runner.warm_up()
    yield "seconds of capturing", time.perf_counter() - begin_s
    yield "bytes of slots, graphs and pools", free_bytes - torch.cuda.mem_get_info()[0]
    yield (
        "bytes of slots, by the formula",
        sum((size.rows[-1] + 1) * _stepper(codec, kind, size.config).new_state(1).memory.shape[1] for kind in KINDS),
    )
    yield "most bytes allocated", torch.cuda.max_memory_allocated()


def steps(size: ReportSize) -> Iterator[Finding]:
    """Measures milliseconds; yields the roofline of the published size too."""
    for dtype in ("bfloat16", "float32"):
        codec = load_codec(size.model, "cuda", dtype)
        for kind in KINDS:
            for rows in size.rows:
                try:
                    yield f"{kind} {dtype}, {rows} rows, ms", 1e3 * _step_s(codec, kind, size.config, rows)
                except RuntimeError as error:  # cuDNN reports a lack of memory as RuntimeError too
                    yield f"{kind} {dtype}, {rows} rows, not measured", str(error)[:200]
                    break
    paper = StreamConfig(prior_weight=0)
    for kind in KINDS:
        for row in rows_of(kind, paper, size.rows[-1:]):
            yield f"roofline of {kind}, {row['way']}, {size.rows[-1]} rows", row["milliseconds"]


def resets(size: ReportSize) -> Iterator[Finding]:
    codec = load_codec(size.model, "cuda", "bfloat16")
    for kind in KINDS:
        stepper = _stepper(codec, kind, size.config)
        state = stepper.new_state(3)
        snapshot = stepper.snapshot(state, 1)
        yield f"{kind}: bytes of a slot", state.memory.shape[1]
        yield f"{kind}: reset, ms", 1e3 * _seconds(partial(stepper.reset, state, 1))
        yield f"{kind}: snapshot, ms", 1e3 * _seconds(partial(stepper.snapshot, state, 1))
        yield f"{kind}: restore, ms", 1e3 * _seconds(partial(stepper.restore, state, 1, snapshot))


def capacity(size: ReportSize) -> Iterator[Finding]:
    flags = ["--model", size.model, "--device", "cuda", "--profiles", "default"]
    flags += ["--max-sessions", str(size.rows[-1]), "--batch-sizes", ",".join(map(str, size.rows)), "--capacity"]
    done = _run("neucodec_streaming.server", *flags)
    yield "the server measures its capacity", done.returncode == 0
    yield "its output", (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()[-20:]


def live(size: ReportSize) -> Iterator[Finding]:
    """Yields the lateness of the chunks of live sessions, on noise."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "eval" / "noise").mkdir(parents=True)
        pcm = np.random.default_rng(0).normal(0, 0.1, 10 * INPUT_RATE).astype(np.float32)
        soundfile.write(folder / "eval" / "noise" / "noise.wav", pcm, INPUT_RATE)
        for kind, sessions in size.live:
            out = folder / f"{kind}.json"
            flags = ["--mix", kind, "--sessions", str(sessions), "--max-sessions", str(sessions)]
            flags += ["--model", size.model, "--batch-sizes", ",".join(map(str, size.rows)), "--out", str(out)]
            flags += ["--data", name, "--clips", "1", "--seconds", str(size.live_s)]
            flags += ["--processes", str(min(sessions, MAX_CLIENT_PROCESSES))]
            settings = {"NEUCODEC_DEVICE": "cuda", "NEUCODEC_PROFILES": "default", "NEUCODEC_KINDS": kind}
            done = _run("benchmarks.load", *flags, **settings)
            row = json.loads(out.read_text())["rows"][-1] if out.exists() else {}
            yield f"{sessions} {kind} sessions: in time", row.get("in_time", False)
            for what in ("held", "refused", "late_ms", "clients_kept_up", "server_cpu", "loop_cpu"):
                yield f"{sessions} {kind} sessions: {what}", str(row.get(what))
            if not row:
                yield f"{sessions} {kind} sessions: output", (done.stderr or done.stdout).strip().splitlines()[-20:]


STAGES: dict[str, tuple[Callable[[ReportSize], Iterator[Finding]], int]] = {
    "machine": (machine, 120),
    "replay": (replay, 300),
    "laws": (laws, 900),
    "against_cpu": (against_cpu, 600),
    "attention": (attention, 120),
    "steps": (steps, 900),
    "kernels": (kernels, 300),
    "resets": (resets, 120),
    "start_up": (start_up, 600),
    "capacity": (capacity, 600),
    "live": (live, 900),
}
"""Name -> generator of findings, and its time limit in seconds."""


def _run(module: str, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    command, environment = [*PYTHON, module, *arguments], os.environ | settings
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def _stepper(codec: Codec, kind: str, config: StreamConfig) -> Stepper:
    return codec.encoder(config) if kind == "encode" else codec.decoder(config)


def _step_s(codec: Codec, kind: str, config: StreamConfig, rows: int) -> float:
    graph = _graph(codec, kind, config, rows)
    return _seconds(lambda: graph.launch().wait())


def _graph(codec: Codec, kind: str, config: StreamConfig, rows: int) -> GraphedStep:
    stepper = _stepper(codec, kind, config)
    state = stepper.new_state(rows)
    state.position.fill_(2 * config.context_frames)
    dtype = torch.float32 if kind == "encode" else torch.int64
    plan = torch.tensor([list(range(rows)), [config.window_frames] * rows, [config.chunk_frames] * rows])
    x = torch.zeros(rows, *stepper.window_shape, dtype=dtype)
    return GraphedStep(stepper, state, x, plan, Captures(codec.device), steady=True)


def _seconds(call: Callable[[], object]) -> float:
    """Returns the median of a few calls, including the device's work."""
    call()
    times = []
    for _ in range(REPEATS):
        torch.cuda.synchronize()
        begin_s = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begin_s)
    return statistics.median(times)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
