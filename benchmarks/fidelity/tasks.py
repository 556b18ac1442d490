"""Rows of the fidelity report, computed by worker processes, which cannot import from a package's `__main__`."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from benchmarks.common.recordings import HARD_CASES
from benchmarks.fidelity.ablations import ABLATIONS, ablated
from benchmarks.fidelity.contenders import Contender, NeuTTS, Sliding, Streamed
from benchmarks.fidelity.references import Reference
from benchmarks.metrics.nearness import END, MIDDLE, START, means, nearness, seam_measures, seams_of
from benchmarks.metrics.scores import Scores, compare
from neucodec_streaming import StreamConfig, load_codec
from neucodec_streaming.codec import Codec

PARTS = {"whole": slice(None), "first 300 ms": START, "middle": MIDDLE, "last 300 ms": END}
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
