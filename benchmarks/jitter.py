"""The jitter buffer compared with a fixed one of 200 ms, on a virtual clock: underruns and added latency on bad
networks.

Speech is sent in chunks of 100 ms and pulled 10 ms at a time. As in TCP, a late chunk delays those after it. `live`
sends in real time without end; `tts` sends utterances of six seconds in bursts, like a synthesiser that is faster than
real time. Added latency is how much later a sample is heard than on a perfect network without a buffer; an underrun
adds its duration. The fixed buffer plays 200 ms after an utterance's first chunk has arrived, and skips audio that is
late; `refilling` plays once 200 ms are ready, also after an underrun. All use the same seeds; each row is their mean,
with counts and silence a minute.

    python -m benchmarks.jitter
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.surroundings import RESULTS_FOLDER, ROOT, write_report
from neucodec_streaming.client.files import read_audio
from neucodec_streaming.client.jitter import JitterBuffer
from neucodec_streaming.config import OUTPUT_RATE

RESULTS = RESULTS_FOLDER / "jitter.json"
SPEECH = ROOT / "demos" / "data" / "speech.flac"
CHUNK_MS, BLOCK_MS, FIXED_MS = 100, 10, 200
UTTERANCE_CHUNKS = 60
UTTERANCE_GAP_MS = 1000
BURST_CHUNKS, BURST_EVERY_MS = 10, 400
STALL_MS, STALL_SHARE = 500, 0.05
NETWORKS = {
    "steady": (0, 0.0),
    "jitter 50 ms": (50, 0.0),
    "jitter 100 ms": (100, 0.0),
    "jitter 200 ms": (200, 0.0),
    "5 % stalls": (20, STALL_SHARE),
    "0.5 % stalls": (20, STALL_SHARE / 10),
}
"""Name -> (jitter in ms, uniform from 0; share of chunks that are half a second later)."""
COLUMNS = ("source", "network", "buffer", "underruns", "silent_ms", "added_ms", "added_p95_ms", "skipped_ms")


class RefillingBuffer:
    """Starts when `depth` samples are ready, also after an underrun."""

    def __init__(self, depth: int) -> None:
        self.position = self.underruns = self.skipped_samples = self.buffered_samples = 0
        self._depth, self._playing, self._finished = depth, False, False

    def push(self, samples: np.ndarray) -> None:
        self.buffered_samples += samples.size
        self._finished = False

    def finish(self) -> None:
        self._finished = True

    def pull(self, count: int) -> None:
        if self.buffered_samples >= self._depth or self._finished:
            self._playing = True
        taken = min(count, self.buffered_samples) if self._playing else 0
        self.buffered_samples -= taken
        self.position += taken
        if self._playing and not self.buffered_samples:
            self._playing = False
            self.underruns += not self._finished


class FixedBuffer(RefillingBuffer):
    """Plays each sample at its place, `depth` after an utterance's first chunk arrived, or skips it."""

    def __init__(self, depth: int) -> None:
        super().__init__(depth)
        self._finished, self._due = True, 0

    def push(self, samples: np.ndarray) -> None:
        if self._finished and not self.buffered_samples:
            self._due = -self._depth  # samples that should have been played by now
        super().push(samples)

    def pull(self, count: int) -> None:
        late = min(max(0, self._due), self.buffered_samples)
        self.buffered_samples -= late
        self.position += late
        self.skipped_samples += late
        self._due -= late
        taken = min(max(0, count + min(0, self._due)), self.buffered_samples)
        self.buffered_samples -= taken
        self.position += taken
        self._due += count - taken
        broken = self._due > 0 and not self.buffered_samples
        self.underruns += broken and self._playing and not self._finished
        self._playing = not broken and taken > 0


BUFFERS: dict[str, Callable[[bool], Any]] = {
    "adaptive": lambda live: JitterBuffer(OUTPUT_RATE, CHUNK_MS * OUTPUT_RATE // 1000, live),
    "fixed": lambda live: FixedBuffer(FIXED_MS * OUTPUT_RATE // 1000),
    "refilling": lambda live: RefillingBuffer(FIXED_MS * OUTPUT_RATE // 1000),
}


def sendings(source: str, chunks: int) -> np.ndarray:
    """Sending times in ms, (chunks,)."""
    number = np.arange(chunks)
    if source == "live":
        return number * CHUNK_MS
    utterance, within = number // UTTERANCE_CHUNKS, number % UTTERANCE_CHUNKS
    start = utterance * (UTTERANCE_CHUNKS * CHUNK_MS + UTTERANCE_GAP_MS)
    return start + within // BURST_CHUNKS * BURST_EVERY_MS


def arrivals(sent: np.ndarray, jitter_ms: int, stall_share: float, rng: np.random.Generator) -> Iterator[float]:
    """Each chunk arrives delayed, and after the previous one."""
    before = 0.0
    for moment in sent:
        stalled_ms = STALL_MS if rng.random() < stall_share else 0
        before = max(before, moment + rng.uniform(0, jitter_ms) + stalled_ms)
        yield before


def simulate(buffer: Any, source: str, network: str, seconds: int, seed: int, speech: np.ndarray) -> dict[str, float]:
    """One run: counts a minute of speech, and the lateness of each block."""
    chunks = seconds * 1000 // CHUNK_MS
    sent = sendings(source, chunks)
    arrived = list(arrivals(sent, *NETWORKS[network], np.random.default_rng(seed)))
    per_ms, size = OUTPUT_RATE // 1000, CHUNK_MS * OUTPUT_RATE // 1000
    ends = {chunks} if source == "live" else {*range(UTTERANCE_CHUNKS, chunks, UTTERANCE_CHUNKS), chunks}
    late_ms: list[float] = []
    silent = clock_ms = pushed = 0
    while pushed < chunks or buffer.buffered_samples:
        while pushed < chunks and arrived[pushed] <= clock_ms:
            buffer.push(np.take(speech, range(pushed * size, (pushed + 1) * size), mode="wrap"))
            pushed += 1
            if pushed in ends:
                buffer.finish()
        before = buffer.position
        buffer.pull(BLOCK_MS * per_ms)
        clock_ms += BLOCK_MS
        if buffer.position > before:
            chunk = (buffer.position - 1) // size
            first = chunk // UTTERANCE_CHUNKS * UTTERANCE_CHUNKS if source == "tts" else 0
            meant_ms = sent[first] + (buffer.position - first * size) / per_ms
            late_ms.append(clock_ms - meant_ms)
        elif before and not (before % size == 0 and before // size in ends):
            silent += BLOCK_MS
    minutes = seconds / 60
    return {
        "underruns": buffer.underruns / minutes,
        "silent_ms": silent / minutes,
        "added_ms": float(np.mean(late_ms)),
        "added_p95_ms": float(np.percentile(late_ms, 95)),
        "skipped_ms": buffer.skipped_samples / per_ms / minutes,
    }


def measure(seconds: int, seeds: int) -> list[dict[str, Any]]:
    speech = read_audio(SPEECH, OUTPUT_RATE)
    rows = []
    for source in ("live", "tts"):
        for network in NETWORKS:
            for name in BUFFERS:
                runs = []
                for seed in range(seeds):
                    runs.append(simulate(BUFFERS[name](source == "live"), source, network, seconds, seed, speech))
                means = {key: round(float(np.mean([run[key] for run in runs])), 1) for key in runs[0]}
                rows.append({"source": source, "network": network, "buffer": name, **means})
                print(" ".join(f"{rows[-1][column]:>13}" for column in COLUMNS), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    print(" ".join(f"{column:>13}" for column in COLUMNS), "  (counts and silence a minute)")
    rows = measure(given.seconds, given.seeds)
    write_report(given.out, {"seconds": given.seconds, "seeds": given.seeds, "rows": rows})


if __name__ == "__main__":
    main()
