"""Checks that a stream of an hour does not drift: `python -m benchmarks.endurance --model nano --minutes 60`.

The evaluation recordings in a loop, every fourth one 40 dB quieter and followed by a second of digital silence, pass
through one encoder stream and their tokens through one decoder stream, as fast as possible. Each minute of audio is a
row: median processor time of a chunk (independent of other programs), resident memory (Linux), and the error of the
running statistics of the mel bins and GroupNorms against plain float64 sums with the same cap. The exit code is 1
unless the rise over the run, by the median slope of all pairs of minutes, is within RISES and every error within
MAX_ERROR. The first minute, in which memory is allocated, is in no slope.
"""

import argparse
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.recordings import SILENCE_SAMPLES, load, quiet, recordings
from benchmarks.common.surroundings import RESULTS_FOLDER, write_report
from benchmarks.common.trend import slope
from neucodec_streaming import load_codec
from neucodec_streaming.codec import Codec
from neucodec_streaming.config import FRAME_MS, INPUT_HOP
from neucodec_streaming.layers.fbank import log_mel
from neucodec_streaming.layers.mel import MEL_PER_FRAME, VARIANCE_FLOOR
from neucodec_streaming.layers.norm import CAP_FRAMES, Moments, PoolingWeights
from neucodec_streaming.layers.step import StepPlan

RESULTS = RESULTS_FOLDER / "endurance.json"
QUIET_EVERY = 4
MINUTE_MS = 60_000
FIRST_MINUTES = 1
MAX_ERROR = 1e-3
"""Largest error of any statistic, in standard deviations."""
RISES = {"encode_ms": 0.1, "decode_ms": 0.1, "rss_bytes": 4e6, "mel_error": 1e-4, "group_norm_error": 1e-4}
"""Largest rise over the run: of times relative to their median, of others absolute."""
RELATIVE = ("encode_ms", "decode_ms")

Values = Callable[[Tensor, int], Tensor]
"""Input of a normalisation and committed frames -> the statistics added, (F, G, N)."""


class Watch:
    """Wraps a normalisation and keeps its statistics a second time, as float64 sums with the same cap."""

    def __init__(self, norm: Any, values: Values, cap: float, variance_floor: float) -> None:
        self._step = norm.step
        self._values, self._cap, self._floor = values, cap, variance_floor
        self._seen: list[tuple[Tensor, StepPlan]] = []
        self._state: Moments | None = None
        self._sums = np.zeros(())
        norm.step = self.step

    def step(self, x: Tensor, state: Moments, weights: PoolingWeights) -> Tensor:
        """Runs the normalisation and stores its input, so that the check does not count in its time."""
        self._seen.append((x, weights.plan))
        self._state = state
        return self._step(x, state, weights)

    def catch_up(self) -> None:
        """Adds the frames committed since the last call."""
        for x, plan in self._seen:
            frames = self._values(x, int(plan.commit)).double().numpy()
            count = np.full(frames.shape[1], frames.shape[0] * frames.shape[2])
            sums = self._sums + np.stack([count, frames.sum((0, 2)), np.square(frames).sum((0, 2))])  # (3, G)
            self._sums = sums * min(1.0, self._cap / sums[0, 0])
        self._seen.clear()

    def error(self) -> float:
        """The largest error of any mean, in standard deviations, or standard deviation, relative to itself."""
        assert self._state is not None
        mean, variance = (part[0].double().numpy() for part in (self._state.mean, self._state.variance))
        exact_mean, exact_square = self._sums[1:] / self._sums[0]
        exact_deviation = np.sqrt(np.maximum(exact_square - np.square(exact_mean), 0) + self._floor)
        deviation = np.sqrt(variance + self._floor)
        errors = np.abs(mean - exact_mean) / exact_deviation, np.abs(deviation / exact_deviation - 1)
        return float(np.max(errors))


def mel_watch(codec: Codec) -> Watch:
    def values(pcm: Tensor, frames: int) -> Tensor:
        return log_mel(pcm)[0, : frames * MEL_PER_FRAME, :, None]

    return Watch(codec.encoder().mel, values, CAP_FRAMES * MEL_PER_FRAME, VARIANCE_FLOOR)


def group_norm_watches(codec: Codec) -> list[Watch]:
    decoder = codec.decoder()
    norms = [norm for block in (*decoder.prior_net, *decoder.post_net) for norm in (block.norm1, block.norm2)]

    def values(x: Tensor, frames: int) -> Tensor:
        return x[0, :frames].unflatten(1, (norms[0].norm.num_groups, -1))

    return [Watch(norm, values, CAP_FRAMES * norm.width, norm.norm.eps) for norm in norms]


def endless(pcms: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """The recordings in a loop, with quiet passages."""
    for index in itertools.count():
        pcm = pcms[index % len(pcms)]
        silence = np.zeros(SILENCE_SAMPLES, np.float32)
        yield pcm if index % QUIET_EVERY else np.concatenate([quiet(pcm), silence])


def packets(pcms: Iterable[np.ndarray], samples: int) -> Iterator[np.ndarray]:
    pending = np.zeros(0, np.float32)
    for pcm in pcms:
        pending = np.concatenate([pending, pcm])
        while len(pending) >= samples:
            yield pending[:samples]
            pending = pending[samples:]


def rows(codec: Codec, pcms: Sequence[np.ndarray], chunks: int) -> Iterator[dict[str, float]]:
    encoder, decoder = codec.encoder_stream(), codec.decoder_stream()
    mel, group_norms = mel_watch(codec), group_norm_watches(codec)
    audio = packets(endless(pcms), codec.default_config.chunk_frames * INPUT_HOP)
    while True:
        encode_ms, decode_ms = [], []
        for packet in itertools.islice(audio, chunks):
            begin_s = time.process_time()
            tokens = encoder.feed(packet)
            between_s = time.process_time()
            decoder.feed(tokens)
            decode_ms.append((time.process_time() - between_s) * 1000)
            encode_ms.append((between_s - begin_s) * 1000)
            for watch in (mel, *group_norms):
                watch.catch_up()
        yield {
            "encode_ms": statistics.median(encode_ms),
            "decode_ms": statistics.median(decode_ms),
            "rss_bytes": resident_bytes(),
            "mel_error": mel.error(),
            "group_norm_error": max(watch.error() for watch in group_norms),
        }


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def verdicts(table: Sequence[dict[str, float]]) -> list[dict[str, Any]]:
    """Returns for each column the slope an hour, the rise over the run, its limit, and whether it is within it."""
    settled = table[FIRST_MINUTES:]
    found = []
    for name, most in RISES.items():
        values = [row[name] for row in settled]
        per_minute = slope(values) / (statistics.median(values) if name in RELATIVE else 1)
        rise = per_minute * (len(settled) - 1)
        flat = rise <= most and (not name.endswith("error") or max(values) <= MAX_ERROR)
        found.append({"of": name, "per_hour": per_minute * 60, "rise": rise, "most": most, "flat": flat})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Slopes of time, memory and statistics over a long stream.")
    parser.add_argument("--model", default="nano", help="a bundled name, a folder or a hub id")
    parser.add_argument("--data", type=Path, default=Path("../shared/speech"), help="folder that holds eval/")
    parser.add_argument("--minutes", type=int, default=60, help="of audio, at least 3")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.minutes < FIRST_MINUTES + 2:
        parser.error(f"--minutes is {given.minutes}: a slope needs at least {FIRST_MINUTES + 2}")
    torch.set_num_threads(given.threads)
    codec = load_codec(given.model)
    pcms = [load(path) for _, path in recordings(given.data)]
    chunks = MINUTE_MS // (codec.default_config.chunk_frames * FRAME_MS)
    table: list[dict[str, float]] = []
    print(" ".join(f"{name:>16}" for name in ("minute", *RISES)))
    for row in itertools.islice(rows(codec, pcms, chunks), given.minutes):
        table.append(row)
        print(" ".join(f"{value:16.6g}" for value in (len(table), *row.values())), flush=True)
    found = verdicts(table)
    for one in found:
        print(
            f"{one['of']:>16}: {one['per_hour']:+.3g} an hour, {one['rise']:+.3g} over the run "
            f"(at most {one['most']:g}): {'flat' if one['flat'] else 'NOT FLAT'}"
        )
    report = {
        "threads": given.threads,
        "command": f"python -m benchmarks.endurance --model {given.model} --minutes {given.minutes}",
        "most_error": MAX_ERROR,
        "slopes": found,
        "minutes": table,
    }
    write_report(given.out, report)
    sys.exit(not all(one["flat"] for one in found))


if __name__ == "__main__":
    main()
