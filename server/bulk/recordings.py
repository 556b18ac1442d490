"""Which recordings a bulk job reads, and which of them may share a batch."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import soundfile

from neucodec_streaming.config import INPUT_HOP, INPUT_RATE
from neucodec_streaming.errors import ConfigError, InputError
from neucodec_streaming.server.bulk.recording_tables import stored_audio, table_files, table_recordings
from neucodec_streaming.server.bulk.rows import AudioFile

ENDINGS = frozenset(f".{name.lower()}" for name in soundfile.available_formats()) - {".raw"} | {".aif", ".opus"}


def find_recordings(source: Path) -> list[AudioFile]:
    """The recordings of a table or folder, in order. Raises ConfigError where there are none."""
    files = table_files(source)
    return table_recordings(files) if files else _in_folder(source)


def opened(recording: AudioFile) -> Path | BytesIO:
    """What soundfile reads a recording from. Raises InputError for a row of a table without audio."""
    return recording.path if recording.row is None else stored_audio(recording.path, recording.row)


def _in_folder(folder: Path) -> list[AudioFile]:
    """Every audio file in a folder and the folders in it, in the order of their names."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder: name one that holds recordings, or a table (.parquet, .csv, .tsv)")
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
        frames = int(header_seconds(recording) * INPUT_RATE) // INPUT_HOP
        waiting[frames].append(recording)
        if len(waiting[frames]) == size:
            yield waiting.pop(frames)
    yield from waiting.values()


def header_seconds(recording: AudioFile) -> float:
    """The duration that a file claims; 0 if it cannot be read, which the encoder reports."""
    try:
        return soundfile.info(opened(recording)).duration
    except (soundfile.LibsndfileError, OSError, InputError):
        return 0.0
