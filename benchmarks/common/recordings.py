"""The recordings of the reports, and hard cases derived from them.

All audio is float32 mono at 16 kHz. The evaluation set has one folder a speaker: DATA/eval/SPEAKER/*.flac or *.wav.
"""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np

from neucodec_streaming.codec import read_audio
from neucodec_streaming.config import INPUT_HOP, INPUT_RATE

SILENCE_SAMPLES = INPUT_RATE
QUIET_GAIN = 0.01
OVERDRIVE = 1.5
DC_OFFSET = 0.1


def recordings(data: Path) -> list[tuple[str, Path]]:
    """(speaker, file) of the evaluation set. Raises FileNotFoundError if it is empty."""
    files = sorted(path for ending in ("flac", "wav") for path in (data / "eval").glob(f"*/*.{ending}"))
    if not files:
        raise FileNotFoundError(f"{data / 'eval'} holds no */*.flac or */*.wav; --data must name the folder above eval")
    return [(path.parent.name, path) for path in files]


def corpora(data: Path) -> dict[Path, str]:
    """File -> its corpus according to DATA/MANIFEST.tsv; empty without that file."""
    manifest = data / "MANIFEST.tsv"
    if not manifest.exists():
        return {}
    with manifest.open(encoding="utf-8", newline="") as lines:
        return {data / row["path"]: row["corpus"] for row in csv.DictReader(lines, delimiter="\t")}


def thinned(files: list, limit: int) -> list:
    """At most `limit` files, evenly spread over the list and so over speakers; all if the limit is 0."""
    count = min(limit or len(files), len(files))
    return [files[index * len(files) // count] for index in range(count)]


def load(path: Path) -> np.ndarray:
    """A file of any rate and channel count as (T,). Raises InputError."""
    return read_audio(path)


def quiet(pcm: np.ndarray) -> np.ndarray:
    """40 dB below the recording."""
    return pcm * np.float32(QUIET_GAIN)


def loud(pcm: np.ndarray) -> np.ndarray:
    """At full scale with clipped peaks."""
    return np.clip(pcm * np.float32(OVERDRIVE / np.abs(pcm).max()), -1, 1)


def with_silence(pcm: np.ndarray) -> np.ndarray:
    """With a second of digital silence before it and one in its middle."""
    silence, middle = np.zeros(SILENCE_SAMPLES, np.float32), len(pcm) // 2
    return np.concatenate([silence, pcm[:middle], silence, pcm[middle:]])


def with_dc_offset(pcm: np.ndarray) -> np.ndarray:
    """With a DC offset, as from a cheap microphone."""
    return pcm + np.float32(DC_OFFSET)


def from_mid_word(pcm: np.ndarray) -> np.ndarray:
    """From the loudest frame of its first half on."""
    frames = pcm[: len(pcm) // 2 // INPUT_HOP * INPUT_HOP].reshape(-1, INPUT_HOP)
    return pcm[int(np.square(frames).sum(axis=1).argmax()) * INPUT_HOP :]


HARD_CASES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "quiet": quiet,
    "loud": loud,
    "silence": with_silence,
    "DC offset": with_dc_offset,
    "mid-word": from_mid_word,
}
