"""The cost of a live round trip compared with Mimi's: `python -m benchmarks.mimi`.

The same number of live sessions in both codecs, one thread, float32, in turns of equal audio, so that other programs
affect both. Ours: a chunk of every session through the engine at the default profile, encoder and decoder step. Mimi
(Kyutai's codec, the package `moshi`): a frame of 80 ms of every session in its streaming mode, 8 codebooks, random
weights of the real size, which cost the same as trained ones. Both rings are full. Figures are seconds of processor
time per second of audio per session, that is shares of one core; `in line` is the share of time that this process
waited for the core, and should be near 0. This compares cost, not quality.

`moshi` is in no extra: it requires torch < 2.10, numpy < 2.3 and huggingface-hub < 1, older than this project's. Mimi
runs with newer ones, so INSTALL installs the package without its dependencies.
"""

import argparse
import math
import os
import statistics
import time
from collections.abc import Iterable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch

from benchmarks.common.surroundings import RESULTS_FOLDER, waited_s, write_report
from neucodec_streaming import load_codec
from neucodec_streaming.codec import Codec
from neucodec_streaming.config import (
    INPUT_HOP,
    OUTPUT_HOP,
    OUTPUT_RATE,
    TOKENS_PER_SECOND,
    input_needed,
    roundtrip_latency_ms,
)
from neucodec_streaming.engine.engine import Engine, pools_of
from neucodec_streaming.engine.results import Output
from neucodec_streaming.engine.runner import Runner

INSTALL = "pip install --no-deps moshi==0.2.13 einops==0.8.2 sentencepiece==0.2.3"
RESULTS = RESULTS_FOLDER / "mimi.json"
SESSIONS = (1, 4, 16)
TURN_SAMPLES = OUTPUT_RATE * 2 // 5
"""Audio of a turn: four chunks of five frames, or five frames of Mimi."""
MAX_SHARE, MAX_BATCH = 0.03, 16
"""Share of a core for a live round-trip session, and the batch size."""
FRAMES_AT_ONCE = 5
"""Frames of a step that fills Mimi's ring; measured steps have one."""
CODEBOOK_STD = 0.01
"""Approximate level of random weights' quantiser input, so that codes change from frame to frame."""
COLUMNS = ("sessions", "codec", "encode", "decode", "both", "steps", "ratio", "of minima", "in line")

TimedSteps = list[tuple[float, float]]
"""Processor seconds of the encoder and decoder half of each step."""


class LiveStreams(Protocol):
    """A batch of live sessions; each step advances all of them by the same time."""

    step_samples: int
    """Output samples of one session in a step, at 24 kHz."""

    def warm_up(self) -> None:
        """Fills the memory of every session, so that later steps have their final cost."""

    def encode(self) -> None:
        """Encodes the next audio of every session."""

    def decode(self) -> int:
        """Decodes those codes: samples at 24 kHz of all sessions together."""


class Ours:
    """Round-trip sessions of our engine whose chunks complete at the same time."""

    def __init__(self, codec: Codec, sessions: int) -> None:
        config = codec.default_config
        pools = pools_of("roundtrip", config)
        runner = Runner(codec, list(pools.values()), sessions, (sessions,))
        runner.warm_up()
        self._engine = Engine(runner)
        self._sessions = [self._engine.open("roundtrip", pools) for _ in range(sessions)]
        self._now_s, self._chunk_s = 0.0, pools["encode"].period_s
        self.step_samples = config.chunk_frames * OUTPUT_HOP
        self._warm_up_steps = math.ceil((config.context_frames + config.lookahead_frames) / config.chunk_frames) + 1
        samples = input_needed("encode", config, 0)  # from then on each chunk completes a window
        ahead, self._chunks = noise(sessions, samples), noise(sessions, config.chunk_frames * INPUT_HOP)
        self._feed(ahead)

    def warm_up(self) -> None:
        for _ in range(self._warm_up_steps):
            self.encode()
            self.decode()

    def encode(self) -> None:
        self._now_s += self._chunk_s
        self._feed(self._chunks)
        self._engine.step(self._now_s)

    def decode(self) -> int:
        return sum(len(result.data) for result in self._engine.step(self._now_s) if isinstance(result, Output))

    def _feed(self, pcm: torch.Tensor) -> None:
        for session, row in zip(self._sessions, pcm.numpy(), strict=True):
            self._engine.feed(session, row, self._now_s)


class Mimi:
    """Streams of a Mimi model in its streaming mode, a frame a step; the owner of `streaming` closes it."""

    def __init__(self, model: Any, sessions: int, streaming: ExitStack) -> None:
        from moshi.modules.transformer import StreamingMultiheadAttention

        streaming.enter_context(model.streaming(sessions))
        self._model = model
        self._frames = noise(sessions, model.frame_size)[:, None]
        self.step_samples = model.frame_size
        context = max(m.context for m in model.modules() if isinstance(m, StreamingMultiheadAttention))
        self._warm_up_calls = math.ceil(context * model.frame_rate / model.encoder_frame_rate / FRAMES_AT_ONCE)

    def warm_up(self) -> None:
        for _ in range(self._warm_up_calls):
            self._model.decode(self._model.encode(self._frames.repeat(1, 1, FRAMES_AT_ONCE)))
        self.encode()
        self.decode()

    def encode(self) -> None:
        self.codes = self._model.encode(self._frames)  # (B, 1, T) -> (B, codebooks, 1)

    def decode(self) -> int:
        return self._model.decode(self.codes).numel()  # (B, codebooks, 1) -> (B, 1, T)


def random_mimi() -> Any:
    """A Mimi of the package's own configuration with random weights. Exits with install instructions if missing."""
    try:
        from moshi.models.loaders import get_mimi
        from moshi.quantization.core_vq import EuclideanCodebook
    except ImportError as error:
        raise SystemExit(f"Mimi cannot be imported ({error}); install it with: {INSTALL}") from error
    torch.manual_seed(0)
    model = get_mimi(None)
    for module in model.modules():
        if isinstance(module, EuclideanCodebook):
            module.embedding_sum.normal_(std=CODEBOOK_STD)
    return model


def noise(sessions: int, samples: int) -> torch.Tensor:
    """Audio (sessions, samples), float32."""
    return 0.1 * torch.randn((sessions, samples), generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def measure(lives: dict[str, LiveStreams], sessions: int, turns: int) -> dict[str, TimedSteps]:
    """Processor times of both codecs' steps, warmed up, in turns of equal audio."""
    for live in lives.values():
        live.warm_up()
    steps: dict[str, TimedSteps] = {name: [] for name in lives}
    for _ in range(turns):
        for name, live in lives.items():
            for _ in range(round(TURN_SAMPLES / live.step_samples)):
                steps[name].append(_timed(live, sessions))
    return steps


def _timed(live: LiveStreams, sessions: int) -> tuple[float, float]:
    begin_s = time.process_time()
    live.encode()
    encoded_s = time.process_time()
    samples = live.decode()
    decoded_s = time.process_time()
    assert samples == sessions * live.step_samples, "every session moves on at every step"
    return encoded_s - begin_s, decoded_s - encoded_s


def shares(steps: TimedSteps, step_samples: int, sessions: int) -> dict[str, float]:
    """Shares of one core for one session: the medians of encoder, decoder and both, and the minimum of both."""
    audio_s = sessions * step_samples / OUTPUT_RATE
    both = [encode_s + decode_s for encode_s, decode_s in steps]
    return {
        "encode": statistics.median(encode_s for encode_s, _ in steps) / audio_s,
        "decode": statistics.median(decode_s for _, decode_s in steps) / audio_s,
        "both": statistics.median(both) / audio_s,
        "both_min": min(both) / audio_s,
        "steps": len(steps),
    }


def row_of(lives: dict[str, LiveStreams], sessions: int, turns: int) -> dict[str, Any]:
    begin_s, waited_before_s = time.perf_counter(), waited_s(os.getpid())
    steps = measure(lives, sessions, turns)
    in_line = (waited_s(os.getpid()) - waited_before_s) / (time.perf_counter() - begin_s)
    ours, mimi = (shares(steps[name], lives[name].step_samples, sessions) for name in ("ours", "mimi"))
    return {
        "sessions": sessions,
        "ours": ours,
        "mimi": mimi,
        "ratio": ours["both"] / mimi["both"],
        "ratio_of_minima": ours["both_min"] / mimi["both_min"],
        "in_line": in_line,
    }


def target_of(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    measured = next((row["ours"]["both"] for row in rows if row["sessions"] == MAX_BATCH), None)
    met = None if measured is None else measured <= MAX_SHARE
    return {"sessions": MAX_BATCH, "most": MAX_SHARE, "measured": measured, "met": met}


def about(codec: Codec, mimi: Any) -> dict[str, dict[str, Any]]:
    """Mimi's codebooks are not parameters; those in use are counted separately."""
    config = codec.default_config
    bits = math.log2(mimi.cardinality) * mimi.num_codebooks
    return {
        "ours": {
            "model": Path(codec.name).name,
            "parameters": _parameters(codec.model),
            "kbit_per_s": TOKENS_PER_SECOND * 16 / 1000,
            "latency_ms": roundtrip_latency_ms(config, config),
            "chunk_frames": config.chunk_frames,
            "lookahead_frames": config.lookahead_frames,
            "context_frames": config.context_frames,
        },
        "mimi": {
            "moshi": version("moshi"),
            "parameters": _parameters(mimi),
            "codebook_values": mimi.num_codebooks * mimi.cardinality * mimi.quantizer.dimension,
            "codebooks": mimi.num_codebooks,
            "kbit_per_s": bits * mimi.frame_rate / 1000,
            "latency_ms": 1000 / mimi.frame_rate,
        },
    }


def _parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def show(row: dict[str, Any]) -> None:
    for name in ("ours", "mimi"):
        share = row[name]
        cells = [str(row["sessions"]), name, *(f"{share[part]:.4f}" for part in ("encode", "decode", "both"))]
        ratios = [f"{row['ratio']:.3f}", f"{row['ratio_of_minima']:.3f}"] if name == "ours" else ["", ""]
        cells += [str(share["steps"]), *ratios, f"{row['in_line']:.2f}"]
        print(" ".join(f"{cell:>9}" for cell in cells), flush=True)


def show_target(target: dict[str, Any]) -> None:
    measured = "not measured" if target["measured"] is None else f"{target['measured']:.2%}"
    verdict = {None: "-", True: "met", False: "MISSED"}[target["met"]]
    print(
        f"one core's share of a roundtrip session, {MAX_BATCH} sessions: {measured} (at most {MAX_SHARE:.0%}) {verdict}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="One core's share of a live roundtrip session: ours and Mimi's.")
    parser.add_argument("--model", default="nano", help="a bundled name, a folder or a hub id")
    parser.add_argument("--sessions", type=int, nargs="+", default=SESSIONS)
    parser.add_argument("--turns", type=int, default=6, help="how often the two take turns")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    started_s = time.monotonic()
    torch.set_num_threads(1)
    codec, model = load_codec(given.model), random_mimi()
    both = about(codec, model)
    for name, what in both.items():
        print(f"{name}: {what['parameters'] / 1e6:.1f} M parameters, {what['kbit_per_s']:.1f} kbit/s, ", end="")
        print(f"latency {what['latency_ms']:.0f} ms")
    print(" ".join(f"{name:>9}" for name in COLUMNS), "  (shares of one core, of one session)")
    rows = []
    for sessions in given.sessions:
        with ExitStack() as streaming:
            lives: dict[str, LiveStreams] = {"ours": Ours(codec, sessions), "mimi": Mimi(model, sessions, streaming)}
            rows.append(row_of(lives, sessions, given.turns))
        show(rows[-1])
    target = target_of(rows)
    show_target(target)
    report = {
        "command": f"python -m benchmarks.mimi --model {Path(given.model).name}",
        "seconds": round(time.monotonic() - started_s, 1),
        **both,
        "rows": rows,
        "target": target,
    }
    write_report(given.out, report)


if __name__ == "__main__":
    main()
