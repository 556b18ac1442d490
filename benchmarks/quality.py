"""How good a model sounds: `python -m benchmarks.quality --model nano --data ../shared/speech`.

Every evaluation recording goes through the codec as a whole (offline, by the model itself) and as a live stream at the
model's defaults; STOI and PESQ (wide band) compare each with the original at 16 kHz. Prints one table, a row a speaker,
and writes the same as JSON with date, commit and device. Means are over files within a speaker, and over all files.
"""

import argparse
import json
import platform
import subprocess
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import soxr
import torch
from pesq import NoUtterancesError, pesq
from pystoi import stoi

from benchmarks.recordings import load, recordings, thinned
from streaming import StreamConfig, load_codec
from streaming.codec import Codec
from streaming.config import INPUT_HOP, INPUT_RATE, OUTPUT_RATE

PACKET_SAMPLES = 1600
PACKET_TOKENS = 5
MEASURES = ("stoi", "pesq")

Scores = dict[str, float | None]


def offline(codec: Codec, pcm: np.ndarray) -> np.ndarray:
    """float32 at 16 kHz (T,) -> float32 at 24 kHz (T // 320 * 480,), the whole recording at once."""
    return codec.decode(codec.encode(pcm))


def streamed(codec: Codec, pcm: np.ndarray, config: StreamConfig | None = None) -> np.ndarray:
    """The same through an encoder and a decoder stream, fed packet by packet."""
    encoder, decoder = codec.encoder_stream(config), codec.decoder_stream(config)
    packets = [encoder.feed(pcm[i : i + PACKET_SAMPLES]) for i in range(0, len(pcm), PACKET_SAMPLES)]
    tokens = np.concatenate([*packets, encoder.flush()])
    pieces = [decoder.feed(tokens[i : i + PACKET_TOKENS]) for i in range(0, len(tokens), PACKET_TOKENS)]
    return np.concatenate([*pieces, decoder.flush()])


def compare(pcm: np.ndarray, audio: np.ndarray) -> Scores:
    """STOI and PESQ of audio at 24 kHz against the original at 16 kHz; None where PESQ finds no speech."""
    count = len(pcm) // INPUT_HOP * INPUT_HOP
    heard, original = soxr.resample(audio, OUTPUT_RATE, INPUT_RATE)[:count], pcm[:count]
    try:
        quality = float(pesq(INPUT_RATE, original, heard, "wb"))
    except NoUtterancesError:
        quality = None
    return {"stoi": float(stoi(original, heard, INPUT_RATE)), "pesq": quality}


def mean(scores: Iterable[Scores], measure: str) -> float | None:
    """Mean of one measure over those files that have it."""
    values = [value for score in scores if (value := score[measure]) is not None]
    return float(np.mean(values)) if values else None


def measure_all(codec: Codec, files: list[tuple[str, Path]], ways: dict[str, Callable]) -> list[dict]:
    """One entry a file: speaker, file, seconds, and the scores of each way."""
    entries = []
    for speaker, path in files:
        pcm = load(path)
        entry = {"speaker": speaker, "file": path.name, "seconds": round(len(pcm) / INPUT_RATE, 2)}
        entries.append(entry | {name: compare(pcm, way(codec, pcm)) for name, way in ways.items()})
    return entries


def table(entries: list[dict], ways: Iterable[str]) -> list[dict]:
    """One row a speaker and a last one over all files, each with the number of files and the means."""
    speakers = sorted({entry["speaker"] for entry in entries})
    groups = [(name, [e for e in entries if e["speaker"] == name]) for name in speakers] + [("all", entries)]
    return [
        {"speaker": name, "files": len(group)}
        | {f"{way} {m}": mean((entry[way] for entry in group), m) for way in ways for m in MEASURES}
        for name, group in groups
    ]


def show(rows: list[dict]) -> None:
    columns = list(rows[0])
    print(" ".join([f"{columns[0]:32}", f"{columns[1]:>5}", *(f"{column:>13}" for column in columns[2:])]))
    for row in rows:
        cells = ("            -" if row[c] is None else f"{row[c]:13.3f}" for c in columns[2:])
        print(f"{row['speaker']:32} {row['files']:5} " + " ".join(cells))


def surroundings() -> dict[str, str]:
    """When, at which commit and on what this ran."""
    git = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    device = f"{platform.machine()} {platform.system()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": git.stdout.strip(), "device": device}


def main() -> None:
    parser = argparse.ArgumentParser(description="STOI and PESQ of a model, offline and streamed.")
    parser.add_argument("--model", default="nano", help="a bundled name, a folder or a hub id")
    parser.add_argument("--data", type=Path, default=Path("../shared/speech"), help="folder that holds eval/")
    parser.add_argument("--limit", type=int, default=0, help="at most N files, evenly over the set")
    parser.add_argument("--offline-only", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/quality-MODEL.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    codec = load_codec(arguments.model)
    files = thinned(recordings(arguments.data), arguments.limit)
    ways: dict[str, Callable] = {"offline": offline} | ({} if arguments.offline_only else {"streamed": streamed})
    started = time.monotonic()
    entries = measure_all(codec, files, ways)
    rows = table(entries, ways)
    show(rows)
    config = codec.default_config
    result = surroundings() | {
        "command": f"python -m benchmarks.quality --model {arguments.model}",
        "chunk_frames": config.chunk_frames,
        "lookahead_frames": config.lookahead_frames,
        "seconds": round(time.monotonic() - started, 1),
        "rows": rows,
        "files": entries,
    }
    out = arguments.out or Path(__file__).parent / "results" / f"quality-{Path(arguments.model).name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {out}")


if __name__ == "__main__":
    main()
