"""Which recordings a bulk job reads, and which of them may share a batch."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from neucodec_streaming.config import INPUT_HOP, INPUT_RATE
from neucodec_streaming.errors import ConfigError

ENDINGS = frozenset(f".{name.lower()}" for name in soundfile.available_formats()) - {".raw"} | {".aif", ".opus"}


@dataclass(frozen=True)
class AudioFile:
    """An audio file, and the name of its row: its path below the folder of the job, with `/`."""

    id: str
    path: Path


def find_recordings(folder: Path) -> list[AudioFile]:
    """Every audio file in a folder and the folders in it, in the order of their names. Raises ConfigError for none."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder: name one that holds recordings")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    if not paths:
        raise ConfigError(f"{folder} and its folders hold no recordings: .wav, .flac, or what else libsndfile reads")
    return [AudioFile(_text(path.relative_to(folder).as_posix()), path) for path in paths]


def _text(name: str) -> str:
    """A file's name as a table can hold it: bytes that are not UTF-8 are written out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def batches(recordings: Sequence[AudioFile], size: int) -> Iterator[list[AudioFile]]:
    """The recordings in lists of at most `size`, all of one frame count by their headers if there are several."""
    if size == 1:
        yield from ([recording] for recording in recordings)
        return
    waiting: dict[int, list[AudioFile]] = defaultdict(list)
    for recording in recordings:
        frames = int(header_seconds(recording.path) * INPUT_RATE) // INPUT_HOP
        waiting[frames].append(recording)
        if len(waiting[frames]) == size:
            yield waiting.pop(frames)
    yield from waiting.values()


def header_seconds(path: Path) -> float:
    """The duration that a file claims; 0 if it cannot be read, which the encoder reports."""
    try:
        return soundfile.info(path).duration
    except (soundfile.LibsndfileError, OSError):
        return 0.0
