"""The inputs of `benchmarks.load`, and the check that each session's output is what it gets alone (law 3).

With one pinned batch size every byte must be equal. With several, kernels round differently: decoded audio must be
within TOLERANCE. For tokens, and for a roundtrip's audio, which depends on tokens that are not sent, the distance is
only reported.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.recordings import load, recordings
from benchmarks.load.client import DONE
from benchmarks.metrics.nearness import level_differences
from neucodec_streaming.audio import pcm_from_bytes, pcm_to_bytes
from neucodec_streaming.codec import Codec
from neucodec_streaming.config import INPUT_HOP, OUTPUT_HOP, StreamConfig
from neucodec_streaming.engine.engine import STAGES, Engine
from neucodec_streaming.engine.results import Failed, FlushFinished, Output
from neucodec_streaming.engine.runner import Runner
from neucodec_streaming.engine.scheduler import Pool
from neucodec_streaming.tokens import tokens_from_bytes, tokens_to_bytes

TOLERANCE = 1e-4 + 1 / 32_768
"""Relative to full scale: the difference between kernels, plus one step of s16le, to which both sides are rounded."""
NOTHING_ENERGY = 1e-12
"""-120 dBFS per sample, far below a step of s16le; keeps the ratio finite for equal outputs."""


def payload_path(folder: Path, kind: str, clip: int) -> Path:
    return folder / f"clip-{clip}.{'tokens' if kind == 'decode' else 's16le'}"


def write_payloads(folder: Path, data: Path, clips: int, packets: int, codec: Codec | None) -> None:
    """Cuts inputs of `packets` packets of 20 ms from the recordings of DATA/eval in sequence, each starting at a
    different one. With a codec also writes their tokens, encoded offline, recording by recording.
    """
    files = [path for _, path in recordings(data)]
    for clip in range(clips):
        first = clip * len(files) // clips
        audio, tokens, frames = [], [], 0
        for path in islice(cycle(files), first, None):
            pcm = load(path)
            audio.append(pcm[: len(pcm) // INPUT_HOP * INPUT_HOP])
            frames += len(pcm) // INPUT_HOP
            if codec is not None:
                tokens.append(codec.encode(audio[-1]))
            if frames >= packets:
                break
        pcm = np.concatenate(audio)[: packets * INPUT_HOP]
        payload_path(folder, "encode", clip).write_bytes(pcm_to_bytes(pcm))
        if tokens:
            payload_path(folder, "decode", clip).write_bytes(tokens_to_bytes(np.concatenate(tokens)[:packets]))


class References:
    """The output of each input alone: one session in a separate engine, stepped at `batch_size`."""

    def __init__(self, codec: Codec, config: StreamConfig, batch_size: int) -> None:
        self._pools = {part: Pool(part, config) for part in STAGES["roundtrip"]}
        self._engine = Engine(Runner(codec, list(self._pools.values()), 1, (batch_size,)))
        self._known: dict[tuple[str, Path], bytes] = {}

    def of(self, kind: str, payload: Path) -> bytes:
        if (kind, payload) not in self._known:
            self._known[kind, payload] = self._output(kind, payload.read_bytes())
        return self._known[kind, payload]

    def _output(self, kind: str, payload: bytes) -> bytes:
        engine = self._engine
        session = engine.open(kind, {part: self._pools[part] for part in STAGES[kind]})
        engine.feed(session, tokens_from_bytes(payload) if kind == "decode" else pcm_from_bytes(payload), 0.0)
        engine.flush(session, 0.0)
        parts: list[bytes] = []
        while True:
            for result in engine.step(0.0):
                if isinstance(result, Output):
                    parts.append(tokens_to_bytes(result.data) if kind == "encode" else pcm_to_bytes(result.data))
                elif isinstance(result, FlushFinished):
                    engine.close(session)
                    return b"".join(parts)
                elif isinstance(result, Failed):
                    raise result.error


def config_of(codec: Codec, session: dict[str, Any]) -> StreamConfig:
    """Adds the model's own context and priors to what the server reported."""
    chunk, lookahead = session["chunk_frames"], session["lookahead_frames"]
    return replace(codec.default_config, chunk_frames=chunk, lookahead_frames=lookahead)


def verified(
    sessions: Sequence[dict[str, Any]], outputs: Path, references: References, is_pinned: bool
) -> dict[str, Any]:
    """Returns the worst per kind, and the numbers of failed sessions."""
    failed: list[int] = []
    seen: dict[str, list[dict[str, Any]]] = {}
    for one in sessions:
        output, is_whole = (outputs / str(one["number"])).read_bytes(), one["outcome"] == DONE
        if not output:
            failed += [one["number"]] if is_whole else []
            continue
        reference = references.of(one["kind"], Path(one["payload"]))
        found = compared(one["kind"], output, reference, is_whole, one["chunk_frames"])
        seen.setdefault(one["kind"], []).append(found)
        if not is_right(one["kind"], found, is_pinned):
            failed.append(one["number"])
    return {"pinned": is_pinned, "failed": failed, "kinds": {kind: worst(found) for kind, found in seen.items()}}


def compared(kind: str, output: bytes, reference: bytes, is_whole: bool, chunk_frames: int) -> dict[str, Any]:
    """Compares with the beginning of the reference if the session closed early; `output` is not empty."""
    lengths_fit = len(output) == len(reference) if is_whole else len(output) <= len(reference)
    length = min(len(output), len(reference))
    output, reference = output[:length], reference[:length]
    near = _tokens_nearness(output, reference) if kind == "encode" else _audio_nearness(output, reference, chunk_frames)
    return {"lengths_fit": lengths_fit, "identical": lengths_fit and output == reference, **near}


def _tokens_nearness(output: bytes, reference: bytes) -> dict[str, float]:
    differences = level_differences(tokens_from_bytes(output), tokens_from_bytes(reference))
    equal = differences == 0
    return {"tokens_equal": float(equal.all(axis=1).mean()), "levels_equal": float(equal.mean())}


def _audio_nearness(output: bytes, reference: bytes, chunk_frames: int) -> dict[str, float]:
    """`chunks_equal` is the share of the stream's chunks within the tolerance."""
    meant = pcm_from_bytes(reference).astype(np.float64)
    error = pcm_from_bytes(output) - meant
    floor = NOTHING_ENERGY * len(meant)
    chunks = np.maximum.reduceat(np.abs(error), np.arange(0, len(error), chunk_frames * OUTPUT_HOP))
    return {
        "max_difference": float(chunks.max()),
        "snr_db": float(10 * np.log10((np.square(meant).sum() + floor) / (np.square(error).sum() + floor))),
        "chunks_equal": float((chunks <= TOLERANCE).mean()),
    }


def is_right(kind: str, found: dict[str, Any], is_pinned: bool) -> bool:
    """Returns whether one session satisfies law 3."""
    if is_pinned:
        return found["identical"]
    return found["lengths_fit"] and (kind != "decode" or found["max_difference"] <= TOLERANCE)


def worst(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    measures = {name: [one[name] for one in found] for name in found[0] if name not in ("identical", "lengths_fit")}
    least = {name: (max if name == "max_difference" else min)(values) for name, values in measures.items()}
    return {"sessions": len(found), "identical": sum(one["identical"] for one in found), **least}
