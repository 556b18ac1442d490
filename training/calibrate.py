"""Measures a model's priors on speech: `python -m training.calibrate --model FOLDER --data FOLDER --out stream.json`.

Works for any model that `load_codec` loads, a real checkpoint too: serve it with the file beside the weights. Takes
`--minutes` of audio, spread evenly over the files, in pieces of 10 s.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from streaming import StreamConfig, load_codec
from streaming.calibration import measure_priors
from streaming.config import INPUT_RATE

PIECE_SECONDS = 10
SUFFIXES = {".flac", ".wav", ".opus", ".ogg", ".mp3"}


def pieces(data: Path, minutes: float) -> Iterator[np.ndarray]:
    """One piece of each of as many files as the minutes ask for, float32 mono at 16 kHz, from its middle."""
    files = sorted(path for path in data.rglob("*") if path.suffix in SUFFIXES)
    if not files:
        raise SystemExit(f"{data} holds no {', '.join(sorted(SUFFIXES))} file: name a folder with recorded speech")
    wanted = max(1, round(minutes * 60 / PIECE_SECONDS))
    for index in np.linspace(0, len(files) - 1, min(wanted, len(files))).round().astype(int):
        with soundfile.SoundFile(files[index]) as file:
            length = min(len(file), PIECE_SECONDS * file.samplerate)
            file.seek((len(file) - length) // 2)
            pcm = file.read(length, dtype="float32", always_2d=True).mean(axis=1)
            yield soxr.resample(pcm, file.samplerate, INPUT_RATE)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the priors of a model's running statistics.")
    parser.add_argument("--model", default="nano", help="name or folder")
    parser.add_argument("--data", type=Path, required=True, help="folder with recorded speech of many speakers")
    parser.add_argument("--out", type=Path, required=True, help="the stream.json to write")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--chunk", type=int, default=5, help="default chunk, frames")
    parser.add_argument("--lookahead", type=int, default=5, help="default lookahead, frames")
    parser.add_argument("--context", type=int, default=250, help="default context, frames")
    parser.add_argument("--prior-weight", type=float, default=12.0, help="frames that the priors count as")
    arguments = parser.parse_args()
    config = StreamConfig(arguments.chunk, arguments.lookahead, arguments.context, arguments.prior_weight)
    content = measure_priors(load_codec(arguments.model), pieces(arguments.data, arguments.minutes), config)
    arguments.out.write_text(json.dumps(content) + "\n")
    print(f"{arguments.out}: {config}")


if __name__ == "__main__":
    main()
