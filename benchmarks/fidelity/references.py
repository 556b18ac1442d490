"""The references for streams: recordings and the offline model's output for them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.common.recordings import HARD_CASES, load, thinned
from benchmarks.metrics.scores import Scores, compare
from neucodec_streaming.codec import Codec

HARD_FILES = 6
LONG_SPEAKERS = 4


@dataclass(frozen=True)
class Reference:
    """A recording at 16 kHz, with the offline model's tokens (F,), its audio (F * 480,), and their scores."""

    pcm: np.ndarray
    tokens: np.ndarray
    audio: np.ndarray
    scores: Scores


def references(codec: Codec, pcms: Iterable[np.ndarray]) -> list[Reference]:
    found = []
    for pcm in pcms:
        tokens = codec.encode(pcm)
        audio = codec.decode(tokens)
        found.append(Reference(pcm, tokens, audio, compare(pcm, audio)))
    return found


def reference_sets(codec: Codec, files: list[tuple[str, Path]], limit: int) -> dict[str, list[Reference]]:
    """Returns `speech`, at most `limit` recordings; each hard case, of a few; `long`, all speech of a few speakers."""
    speech = [load(path) for _, path in thinned(files, limit)]
    few = thinned(speech, HARD_FILES)
    pooled_from = {"speech": speech} | {name: [change(pcm) for pcm in few] for name, change in HARD_CASES.items()}
    speakers = thinned(sorted({speaker for speaker, _ in files}), min(LONG_SPEAKERS, len(speech)))
    pooled_from["long"] = [np.concatenate([load(path) for owner, path in files if owner == name]) for name in speakers]
    return {name: references(codec, pcms) for name, pcms in pooled_from.items()}
