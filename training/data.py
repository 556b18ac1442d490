"""Speech for training: compressed recordings in, random crops at both rates out.

`prepare` decodes every file once, to 16 kHz (the model's input) and 24 kHz (its target), as two flat int16 arrays and
one index. A folder with `MANIFEST.tsv` lists its files there, and only `train/` is read; in any other folder every
audio file is read, each sub-folder is a speaker, and a file's rate gives its bandwidth. Audio from 16 kHz has no
content above 8 kHz: a crop states this as `bandwidth_hz`, and the losses ignore what is above.
"""

import csv
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from neucodec_streaming.server.calibrate import audio_files

HOP_IN = 320
HOP_OUT = 480
RATE_IN = 16_000
RATE_OUT = 24_000
FULL_SCALE = 32_767.0

# Share of the batches for each corpus: many speakers and full band often, single words rarely.
CORPUS_SHARE = {
    "librispeech": 0.22,
    "rhasspy_voices": 0.16,
    "speechocean762": 0.12,
    "robotutor": 0.07,
    "gcompris": 0.07,
    "artikulate": 0.06,
    "alphanumeric": 0.06,
    "tinkr": 0.05,
    "tofugu": 0.04,
    "audio_cmn": 0.03,
    "asterisk_core": 0.04,
    "picovoice_s2i": 0.03,
    "festvox_ru": 0.03,
    "nabucasa": 0.03,
    "css10": 0.02,
    "picovoice_wake": 0.01,
    "linku": 0.01,
    "curiouslearning": 0.01,
}
OTHER_SHARE = 0.05
FOLDER_CORPUS = "folder"
# Every n-th recording of these corpora is held out.
HELD_OUT_EVERY = {"librispeech": 32, "speechocean762": 58, "alphanumeric": 16, FOLDER_CORPUS: 50}


Change = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""Changes a crop: input (T,) at 16 kHz and target (T,) at 24 kHz."""


@dataclass(frozen=True)
class Recording:
    """One prepared file: `frames` hops of 20 ms from hop `start` of the flat arrays."""

    path: str
    corpus: str
    speaker: str
    bandwidth_hz: int
    start: int
    frames: int
    held_out: bool


@dataclass(frozen=True)
class Batch:
    """Crops of equal length: `heard` (B, (F + 1) * 320) at 16 kHz, `target` (B, F * 480) at 24 kHz, `bandwidth_hz`
    (B,).
    """

    heard: Tensor
    target: Tensor
    bandwidth_hz: Tensor


def prepare(root: Path, work: Path) -> None:
    """Skips a folder that is already prepared. Raises ConfigError if `root` contains no audio."""
    if (work / "index.json").exists():
        return
    rows = listed(root) if (root / "MANIFEST.tsv").exists() else found(root)
    work.mkdir(parents=True, exist_ok=True)
    recordings, start = [], 0
    with (work / "heard.i16").open("wb") as heard, (work / "target.i16").open("wb") as target:
        for row, held_out in zip(rows, _held_out(rows), strict=True):
            pcm, rate = soundfile.read(root / row["path"], dtype="float32", always_2d=True)
            at_16k = soxr.resample(pcm.mean(axis=1), rate, RATE_IN)
            at_24k = soxr.resample(pcm.mean(axis=1), rate, RATE_OUT)
            frames = min(len(at_16k) // HOP_IN, len(at_24k) // HOP_OUT)
            heard.write(_to_int16(at_16k[: frames * HOP_IN]))
            target.write(_to_int16(at_24k[: frames * HOP_OUT]))
            bandwidth_hz = int(row["source_rate"]) // 2
            recording = Recording(row["path"], row["corpus"], row["speaker"], bandwidth_hz, start, frames, held_out)
            recordings.append(asdict(recording))
            start += frames
    (work / "index.json").write_text(json.dumps(recordings, indent=1))


def listed(root: Path) -> list[dict[str, str]]:
    """Returns path, corpus, speaker, source_rate and other columns of MANIFEST.tsv."""
    with (root / "MANIFEST.tsv").open() as file:
        return [row for row in csv.DictReader(file, delimiter="\t") if row["path"].startswith("train/")]


def found(root: Path) -> list[dict[str, str]]:
    """Returns such rows for a folder without a manifest."""
    return [
        {
            "path": str(path.relative_to(root)),
            "corpus": FOLDER_CORPUS,
            "speaker": path.parent.name,
            "source_rate": str(min(soundfile.info(path).samplerate, RATE_OUT)),
        }
        for path in audio_files(root)
    ]


class Speech:
    """Prepared speech of one split."""

    def __init__(self, work: Path, held_out: bool) -> None:
        recordings = [Recording(**row) for row in json.loads((work / "index.json").read_text())]
        self.recordings = [r for r in recordings if r.held_out == held_out]
        if not self.recordings:
            raise ValueError(f"{work} has no recording with held_out={held_out}; delete index.json to prepare it again")
        self._heard = np.memmap(work / "heard.i16", dtype=np.int16, mode="r")
        self._target = np.memmap(work / "target.i16", dtype=np.int16, mode="r")
        self._weights = _weights(self.recordings)

    def batch(
        self,
        rng: np.random.Generator,
        crops: int,
        frames: int,
        gain_db: tuple[float, float],
        change: Change | None = None,
    ) -> Batch:
        """Returns crops of `frames` hops, each with its own gain and change; see `Batch` for shapes."""
        chosen = rng.choice(len(self.recordings), size=crops, p=self._weights)
        pairs = [self._crop(rng, self.recordings[i], frames, gain_db) for i in chosen]
        if change is not None:
            pairs = [change(heard, target, rng) for heard, target in pairs]
        return Batch(
            heard=torch.from_numpy(np.stack([heard for heard, _ in pairs])),
            target=torch.from_numpy(np.stack([target for _, target in pairs])),
            bandwidth_hz=torch.tensor([float(self.recordings[i].bandwidth_hz) for i in chosen]),
        )

    def whole(self, recording: Recording, frames: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the first `frames` hops of a recording (or all): float32 at 16 kHz and at 24 kHz."""
        frames = min(frames, recording.frames)
        return (
            self._read(self._heard, HOP_IN, recording.start, frames),
            self._read(self._target, HOP_OUT, recording.start, frames),
        )

    def _crop(
        self, rng: np.random.Generator, recording: Recording, frames: int, gain_db: tuple[float, float]
    ) -> tuple[np.ndarray, np.ndarray]:
        start = recording.start + int(rng.integers(0, max(1, recording.frames - frames)))
        gain = 10.0 ** (rng.uniform(*gain_db) / 20.0)
        heard = self._read(self._heard, HOP_IN, start, frames + 1) * gain
        target = self._read(self._target, HOP_OUT, start, frames) * gain
        return heard.astype(np.float32), target.astype(np.float32)

    @staticmethod
    def _read(samples: np.ndarray, hop: int, start: int, frames: int) -> np.ndarray:
        piece = samples[start * hop : (start + frames) * hop].astype(np.float32) / FULL_SCALE
        return np.pad(piece, (0, frames * hop - len(piece)))


def _weights(recordings: list[Recording]) -> np.ndarray:
    """Returns probabilities: the corpus' share, in proportion to the square root of a recording's length.

    A recording often stands for a speaker: the root gives speakers with little audio more than their share of the
    hours.
    """
    roots: dict[str, float] = {}
    for recording in recordings:
        roots[recording.corpus] = roots.get(recording.corpus, 0.0) + recording.frames**0.5
    share = [CORPUS_SHARE.get(r.corpus, OTHER_SHARE) * r.frames**0.5 / roots[r.corpus] for r in recordings]
    return np.array(share) / np.sum(share)


def _held_out(rows: list[dict[str, str]]) -> list[bool]:
    seen: dict[str, int] = {}
    flags = []
    for row in rows:
        every = HELD_OUT_EVERY.get(row["corpus"], 0)
        seen[row["corpus"]] = seen.get(row["corpus"], 0) + 1
        flags.append(every > 0 and seen[row["corpus"]] % every == 0)
    if len(flags) > 1 and not any(flags):
        flags[-1] = True
    return flags


def _to_int16(pcm: np.ndarray) -> bytes:
    return np.round(np.clip(pcm, -1.0, 1.0) * FULL_SCALE).astype(np.int16).tobytes()
