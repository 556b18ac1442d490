"""Recovery of live playback from a network stall: how soon the delay is back, and what the splices cost in STOI.

Runs on a virtual clock. Speech, clean and with noise 15 and 6 dB below it, is sent in chunks of 100 ms that arrive up
to 20 ms late, and pulled 10 ms at a time. At 10 s nothing arrives for a while, then everything at once. `back_s` is the
time from there until the delay is again within one pitch period of its former value. STOI, over twelve seconds around
the stall, is that of the sent audio against the clean recording, and of the heard audio against the clean recording cut
at the same splices. The difference is the cost of the splices.

    python -m benchmarks.stalls
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pystoi import stoi

from benchmarks.common.surroundings import RESULTS_FOLDER, ROOT, write_report
from neucodec_streaming.client.files import read_audio
from neucodec_streaming.client.jitter import JitterBuffer, Splice
from neucodec_streaming.client.time_scale import LONGEST_LAG_MS
from neucodec_streaming.config import OUTPUT_RATE

RESULTS = RESULTS_FOLDER / "stalls.json"
SPEECH = ROOT / "demos" / "data" / "speech.flac"
CHUNK_MS, BLOCK_MS, JITTER_MS = 100, 10, 20
SECONDS, STALL_AT_S = 40, 10.0
AROUND_S = (8, 20)
NOISES_DB = (None, 15, 6)
STALLS_S = (0.2, 0.4, 0.5, 0.7, 1.5, 3.0)
PER_MS = OUTPUT_RATE // 1000
COLUMNS = ("noise_db", "stall_s", "back_s", "skips", "left_out_s", "stoi_sent", "stoi_heard", "stoi_loss")


def cut_at(audio: np.ndarray, splices: Sequence[Splice]) -> np.ndarray:
    """Returns the recording without the samples that the splices skipped."""

    def kept() -> Iterator[np.ndarray]:
        done = 0
        for splice in splices:
            yield audio[done : splice.position]
            done = splice.position + splice.samples
        yield audio[done:]

    return np.concatenate(list(kept()))


def arrivals(chunks: int, stall_s: float, seed: int) -> np.ndarray:
    """Arrival times in s, (chunks,)."""
    times = np.arange(chunks) * CHUNK_MS / 1000 + np.random.default_rng(seed).uniform(0, JITTER_MS / 1000, chunks)
    times[(times >= STALL_AT_S) & (times < STALL_AT_S + stall_s)] = STALL_AT_S + stall_s
    return np.maximum.accumulate(times)


def play(audio: np.ndarray, stall_s: float, seed: int) -> tuple[JitterBuffer, np.ndarray, np.ndarray]:
    """Returns the buffer, the heard audio without silence, and its age at every block, s."""
    chunks = np.split(audio, audio.size // (CHUNK_MS * PER_MS))
    arrived = arrivals(len(chunks), stall_s, seed)
    buffer = JitterBuffer(OUTPUT_RATE, CHUNK_MS * PER_MS, live=True)
    heard, ages = [], []
    pushed = block = 0
    while pushed < len(chunks) or buffer.buffered_samples:
        while pushed < len(chunks) and arrived[pushed] <= block * BLOCK_MS / 1000:
            buffer.push(chunks[pushed])
            pushed += 1
            if pushed == len(chunks):
                buffer.finish()
        heard.append(buffer.pull(BLOCK_MS * PER_MS))
        block += 1
        ages.append(block * BLOCK_MS / 1000 - buffer.position / OUTPUT_RATE)
    everything = np.concatenate(heard)
    return buffer, everything[everything != 0], np.array(ages)


def measure(speech: np.ndarray, noise_db: float | None, stall_s: float, seed: int) -> dict[str, Any]:
    level = 10 ** (-(80 if noise_db is None else noise_db) / 20) * float(np.sqrt(np.mean(speech**2)))
    audio = speech + np.random.default_rng(seed).normal(0, level, speech.size).astype(np.float32)
    buffer, heard, ages = play(audio, stall_s, seed)
    over = round((STALL_AT_S + stall_s) * 1000 / BLOCK_MS)
    before = float(np.median(ages[over - 200 - round(stall_s * 1000 / BLOCK_MS) : over - round(stall_s * 100)]))
    late = np.flatnonzero(ages[over:] > before + LONGEST_LAG_MS / 1000 + BLOCK_MS / 1000)
    around = slice(*(second * OUTPUT_RATE for second in AROUND_S))
    sent = float(stoi(speech[around], audio[around], OUTPUT_RATE))
    reference = cut_at(speech, list(buffer.splices))
    kept = float(stoi(reference[around], heard[around], OUTPUT_RATE))
    return {
        "back_s": (int(late[-1]) + 1) * BLOCK_MS / 1000 if late.size else 0.0,
        "skips": buffer.skips,
        "left_out_s": buffer.skipped_samples / OUTPUT_RATE,
        "stoi_sent": sent,
        "stoi_heard": kept,
        "stoi_loss": sent - kept,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    recording = read_audio(SPEECH, OUTPUT_RATE)
    speech = np.resize(recording, SECONDS * OUTPUT_RATE)
    print(" ".join(f"{column:>10}" for column in COLUMNS))
    rows = []
    for noise_db in NOISES_DB:
        for stall_s in STALLS_S:
            runs = [measure(speech, noise_db, stall_s, seed) for seed in range(given.seeds)]
            worst = {key: round(float(max(run[key] for run in runs)), 4) for key in runs[0]}
            worst |= {key: round(float(np.mean([run[key] for run in runs])), 4) for key in ("stoi_sent", "stoi_heard")}
            rows.append({"noise_db": noise_db, "stall_s": stall_s, **worst})
            print(" ".join(f"{rows[-1][column]!s:>10}" for column in COLUMNS), flush=True)
    write_report(given.out, {"seconds": SECONDS, "seeds": given.seeds, "rows": rows})


if __name__ == "__main__":
    main()
