"""The loss of fidelity by streaming: `python -m benchmarks.fidelity --model nano --data ../shared/speech`.

Over a grid of chunk, lookahead, context and prior weight, codes recordings as streams and compares them with the
offline model, next to the sliding window of the same latency and NeuTTS's geometry (sliding_window.py). At the model's
default, also codes hard cases (benchmarks.common.recordings). `--ablations` changes one approximation at a time
(ablations.py). Prints tables and a check list of the targets; writes JSON and a plot.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch

from benchmarks.common.processes import spread
from benchmarks.common.recordings import HARD_CASES, recordings, thinned
from benchmarks.common.surroundings import RESULTS_FOLDER, surroundings
from benchmarks.fidelity.ablations import ABLATIONS, ablated
from benchmarks.fidelity.contenders import Contender, NeuTTS, Sliding, Streamed
from benchmarks.fidelity.references import Reference, reference_sets
from benchmarks.fidelity.report import check_list, draw, print_report
from benchmarks.metrics.nearness import END, MIDDLE, START, means, nearness, seam_measures, seams_of
from benchmarks.metrics.scores import Scores, compare
from neucodec_streaming import StreamConfig, load_codec
from neucodec_streaming.codec import Codec

PARTS = {"whole": slice(None), "first 300 ms": START, "middle": MIDDLE, "last 300 ms": END}
ABLATION_FILES = 16
CHUNKS = ((2, 3), (2, 8), (5, 0), (5, 2), (5, 5), (5, 10), (5, 15), (8, 2), (10, 10))
"""Chunk and lookahead."""
CONTEXTS = (50, 100, 250, 500)
PRIOR_WEIGHTS = (0.0, 6.0, 12.0, 25.0, 100.0)


@dataclass(frozen=True)
class Task:
    """All that a worker needs to compute the rows of one way at one configuration."""

    model: str
    way: str
    config: StreamConfig
    pooled_from: dict[str, list[Reference]]
    costs: dict[str, float]


def grid(size: str, default: StreamConfig) -> list[StreamConfig]:
    """Returns the points to measure, the default first."""
    if size == "default":
        return [default]
    axes = [(CHUNKS, CONTEXTS, PRIOR_WEIGHTS)]
    if size == "small":
        context, weight = (default.context_frames,), (default.prior_weight,)
        chunk = ((default.chunk_frames, default.lookahead_frames),)
        axes = [(CHUNKS, context, weight), (chunk, CONTEXTS, weight), (chunk, context, PRIOR_WEIGHTS)]
    points = [StreamConfig(*chunk, context, weight) for part in axes for chunk, context, weight in product(*part)]
    return list(dict.fromkeys([default, *points]))


def tasks_of(codec: Codec, points: Sequence[StreamConfig], pooled_from: dict[str, list[Reference]]) -> list[Task]:
    """Returns every way at every point, the longest first: all sets at the first point, only speech at the others.

    Measures costs before workers share the machine.
    """
    windows = {(config.chunk_frames, config.lookahead_frames): config for config in reversed(points)}
    pairs = [("sliding", config) for config in sorted(windows.values(), key=lambda config: config.chunk_frames)]
    pairs += [("NeuTTS", points[0])] + [("streamed", config) for config in points]
    speech = {"speech": pooled_from["speech"]}
    return [
        Task(
            codec.name, way, config, pooled_from if config == points[0] else speech, way_of(codec, way, config).costs()
        )
        for way, config in pairs
    ]


def way_of(codec: Codec, name: str, config: StreamConfig) -> Contender:
    """Returns a way by its name; NeuTTS has only one configuration."""
    if name == "NeuTTS":
        return NeuTTS(codec)
    return Streamed(codec, config) if name == "streamed" else Sliding(codec, config)


def rows_of(task: Task) -> list[dict]:
    torch.set_num_threads(1)
    way = way_of(load_codec(task.model), task.way, task.config)
    return [
        task.costs | row for name, references in task.pooled_from.items() for row in measured(way, name, references)
    ]


def measured(way: Contender, name: str, references: list[Reference]) -> list[dict]:
    """Returns the rows of the whole set, then of its parts.

    Levels are of the way's own encoder. Log-mel distance, SNR, seam, `decoded_stoi` and `decoded_pesq` are of its
    decoder on the offline tokens; `stoi` and `pesq` are of the round trip.
    """
    tokens = way.encode([reference.pcm for reference in references])
    pieces = way.decode([reference.tokens for reference in references])
    heard = way.decode(tokens)
    near = [
        nearness(own, np.concatenate(parts), reference.tokens, reference.audio)
        for own, parts, reference in zip(tokens, pieces, references, strict=True)
    ]
    scores = {
        "": [compare(r.pcm, np.concatenate(parts)) for r, parts in zip(references, heard, strict=True)],
        "decoded_": [compare(r.pcm, np.concatenate(parts)) for r, parts in zip(references, pieces, strict=True)],
    }
    seams = seam_measures([seams_of(parts, r.audio) for parts, r in zip(pieces, references, strict=True)])
    rows = []
    for part, frames in PARTS.items():
        row = point_of(way) | {"set": name, "part": part, "recordings": len(references)}
        rows.append(row | means([one.measures(frames) for one in near]))
    rows[0] |= seams | paired(scores, [reference.scores for reference in references])
    return rows


def point_of(way: Contender) -> dict:
    config = way.config
    streamed = config if isinstance(way, Streamed) else None
    return {
        "way": way.name,
        "chunk_frames": config and config.chunk_frames,
        "lookahead_frames": config and config.lookahead_frames,
        "context_frames": streamed and streamed.context_frames,
        "prior_weight": streamed and streamed.prior_weight,
    } | way.latencies_ms


def order(row: dict) -> tuple:
    """Sort key of rows: set and part, then latency, then point, with the ways adjacent."""
    names = ("decode_ms", "chunk_frames", "lookahead_frames", "context_frames", "prior_weight")
    pooled_from = ("speech", *HARD_CASES, "long")
    return (pooled_from.index(row["set"]), list(PARTS).index(row["part"]), *(row[name] or 0 for name in names))


def paired(scores: dict[str, list[Scores]], offline: list[Scores]) -> dict[str, float | None]:
    """Returns means of STOI and PESQ, their mean loss against offline per recording, and its standard error."""
    row: dict[str, float | None] = {}
    for measure in ("stoi", "pesq"):
        for kind, own in scores.items():
            pairs = [(o[measure], r[measure]) for o, r in zip(own, offline, strict=True)]
            both = np.array([pair for pair in pairs if None not in pair], float).reshape(-1, 2)
            losses = both[:, 1] - both[:, 0]
            row[f"{kind}{measure}"] = float(both[:, 0].mean()) if len(both) else None
            row[f"{kind}{measure}_loss"] = float(losses.mean()) if len(both) else None
            row[f"{kind}{measure}_loss_error"] = float(losses.std() / len(both) ** 0.5) if len(both) else None
    return row


def ablation_row(name_and_kind: tuple[str, str], model: str, references: list[Reference]) -> dict:
    torch.set_num_threads(1)
    ablation = next(a for a in ABLATIONS if (a.name, a.kind) == name_and_kind)
    return ablated(load_codec(model), ablation, references)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fidelity of streams against the offline model, with the baseline.")
    parser.add_argument("--model", default="nano", help="a bundled name, a folder or a hub id")
    parser.add_argument("--data", type=Path, default=Path("../shared/speech"), help="folder that contains eval/")
    parser.add_argument("--files", type=int, default=32, help="at most N recordings, evenly over the speakers; 0: all")
    parser.add_argument(
        "--grid",
        choices=("default", "small", "full"),
        default="small",
        help="the default point; from it along each axis; or every combination",
    )
    parser.add_argument("--ablations", action="store_true", help="also undo each approximation by itself")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="number of processes of one thread")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/fidelity-MODEL.json, with a plot")
    arguments = parser.parse_args()
    started = time.monotonic()
    torch.set_num_threads(1)
    codec = load_codec(arguments.model)
    pooled_from = reference_sets(codec, recordings(arguments.data), arguments.files)
    tasks = tasks_of(codec, grid(arguments.grid, codec.default_config), pooled_from)
    rows = [row for rows in spread(rows_of, tasks, arguments.processes) for row in rows]
    ablations = []
    if arguments.ablations:
        call = partial(ablation_row, model=arguments.model, references=thinned(pooled_from["speech"], ABLATION_FILES))
        ablations = spread(call, [(a.name, a.kind) for a in ABLATIONS], arguments.processes)
    rows.sort(key=order)
    default = point_of(Streamed(codec, codec.default_config))
    checks = check_list(rows, default)
    print_report(rows, ablations, checks, default)
    result = surroundings() | {
        "command": f"python -m benchmarks.fidelity --model {arguments.model} --files {arguments.files}"
        f" --grid {arguments.grid}{' --ablations' * arguments.ablations}",
        "seconds": round(time.monotonic() - started, 1),
        "default": default,
        "checks": checks,
        "rows": rows,
        "ablations": ablations,
    }
    out = arguments.out or RESULTS_FOLDER / f"fidelity-{Path(arguments.model).name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    draw(rows, default, out.with_suffix(".png"))
    print(f"written to {out} and {out.with_suffix('.png')}")


if __name__ == "__main__":
    main()
