"""Measures a model's priors on speech.

    python -m neucodec_streaming.server.calibrate --model NAME --data FOLDER --out stream.json

Works for any model that `load_codec` loads: `neucodec-server --stream-json FILE` serves a hub id with the result; a
folder holds it beside the weights. Takes `--minutes` of audio, spread evenly over the files, in pieces of 10 s.

Exit codes: 0 written, 2 an invalid setting or unusable data, 3 a model that cannot be loaded.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from neucodec_streaming.audio import check_audio
from neucodec_streaming.calibration import measure_priors
from neucodec_streaming.codec import load_codec
from neucodec_streaming.config import INPUT_RATE, StreamConfig
from neucodec_streaming.errors import ConfigError, InputError, ModelError
from neucodec_streaming.server.cli import EXIT_CONFIG, EXIT_MODEL

PIECE_SECONDS = 10
SUFFIXES = (".flac", ".mp3", ".ogg", ".opus", ".wav")


def main(arguments: list[str] | None = None) -> int:
    """Measures and writes the file; returns the exit code."""
    given = _parser().parse_args(arguments)
    try:
        calibrate(given)
    except (ConfigError, InputError, ModelError) as error:
        print(f"calibrate: {error}", file=sys.stderr)
        return EXIT_MODEL if isinstance(error, ModelError) else EXIT_CONFIG
    return 0


def calibrate(given: argparse.Namespace) -> None:
    """Writes `given.out` and prints a summary. Raises ConfigError, InputError, ModelError."""
    config = StreamConfig(given.chunk, given.lookahead, given.context, given.prior_weight)
    if not 0 < given.minutes < float("inf"):
        raise ConfigError(f"minutes is {given.minutes}: expected a number above 0")
    if given.out.is_dir() or not os.access(given.out.parent, os.W_OK):
        raise ConfigError(f"{given.out} cannot be written: set --out to a file in an existing, writable folder")
    recordings = pieces(audio_files(given.data), given.minutes)
    content = measure_priors(load_codec(given.model, device=given.device), recordings, config)
    given.out.write_text(json.dumps(content) + "\n")
    done = content["measured"]
    print(f"{given.out}: {done['minutes']:g} minutes in {done['recordings']} pieces, level {done['level_dbfs']:g} dBFS")


def audio_files(folder: Path) -> list[Path]:
    """All audio files below `folder` by extension, in order. Raises ConfigError if there are none."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise ConfigError(f"{folder} contains no {', '.join(SUFFIXES)} file: set --data to a folder of recorded speech")
    return files


def pieces(files: list[Path], minutes: float) -> Iterator[np.ndarray]:
    """Pieces for the given minutes, spread over files and within them: float32 mono at 16 kHz (n,).

    An unreadable file is reported on standard error and skipped.
    """
    wanted = max(1, round(minutes * 60 / PIECE_SECONDS))
    for index in np.linspace(0, len(files) - 1, min(wanted, len(files))).round().astype(int):
        try:
            yield from _pieces_of(files[index], -(-wanted // len(files)))
        except (soundfile.LibsndfileError, OSError, InputError) as error:
            print(f"skipped {files[index]}: {error}", file=sys.stderr)


def _pieces_of(path: Path, most: int) -> Iterator[np.ndarray]:
    """Up to `most` evenly spread pieces that do not overlap."""
    with soundfile.SoundFile(path) as file:
        length = min(file.frames, PIECE_SECONDS * file.samplerate)
        count = min(most, max(1, file.frames // (PIECE_SECONDS * file.samplerate)))
        for place in range(count):
            file.seek((2 * place + 1) * file.frames // (2 * count) - length // 2)
            pcm = file.read(length, dtype="float32", always_2d=True).mean(axis=1)
            yield soxr.resample(check_audio(pcm), file.samplerate, INPUT_RATE)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m neucodec_streaming.server.calibrate",
        description="Measures the priors of a model's streams on speech, and writes them with the streams' defaults.",
    )
    add = parser.add_argument
    add("--model", required=True, help="nano, a folder, or a hub id such as neuphonic/neucodec")
    add("--data", type=Path, required=True, help="folder of recorded speech from many speakers")
    add("--out", type=Path, required=True, help="the stream.json to write")
    add("--device", default="cpu", help="torch device (default cpu)")
    add("--minutes", type=float, default=30.0, help="audio to measure (default 30)")
    add("--chunk", type=int, default=5, help="default chunk in frames of 20 ms (default 5)")
    add("--lookahead", type=int, default=5, help="default lookahead in frames (default 5)")
    add("--context", type=int, default=250, help="default context in frames (default 250)")
    add("--prior-weight", type=float, default=12.0, help="weight of the priors in frames (default 12)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
