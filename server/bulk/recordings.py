"""Recordings of a bulk job, and batches of equal frame count."""

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
    """The recordings of a table or folder, in order. Raises ConfigError if there are none."""
    files = table_files(source)
    return table_recordings(files) if files else _in_folder(source)


def opened(recording: AudioFile) -> Path | BytesIO:
    """The source of a recording for soundfile. Raises InputError for a table's row without audio."""
    return recording.path if recording.row is None else stored_audio(recording.path, recording.row)


def _in_folder(folder: Path) -> list[AudioFile]:
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} is not a folder: specify a folder of recordings, or a table (.parquet, .csv, .tsv)"
        )
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    if not paths:
        raise ConfigError(f"{folder} contains no recordings: specify a folder with .wav, .flac or other audio files")
    return [AudioFile(_text(path.relative_to(folder).as_posix()), path) for path in paths]


def _text(name: str) -> str:
    """A file's name as text for a table: bytes that are not UTF-8 are escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def batches(recordings: Sequence[AudioFile], size: int) -> Iterator[list[AudioFile]]:
    """The recordings in lists of at most `size`; those with several have one frame count, by their headers."""
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
    """The duration in a file's header; 0 if unreadable, which the encoder reports."""
    try:
        return soundfile.info(opened(recording)).duration
    except (soundfile.LibsndfileError, OSError, InputError):
        return 0.0
