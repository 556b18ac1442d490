"""The work of a worker: recordings to rows of tokens, rows to audio files. A bad one is skipped with its reason."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import soundfile

from neucodec_streaming.audio import pcm_to_bytes
from neucodec_streaming.codec import load_codec, read_audio
from neucodec_streaming.config import INPUT_HOP, INPUT_RATE
from neucodec_streaming.errors import InputError, StreamingError, TokenError
from neucodec_streaming.server.bulk.recordings import header_seconds, opened
from neucodec_streaming.server.bulk.rows import MAX_SECONDS, AudioFile, Skipped, WrittenFile
from neucodec_streaming.tokens import TokenRecord


class BulkCoder:
    """A loaded model and the limits of a job. Raises ModelError, ConfigError."""

    def __init__(self, model: str, device: str = "cpu", threads: int = 1, max_seconds: float = MAX_SECONDS) -> None:
        self.codec = load_codec(model, device, threads=threads)
        self.max_seconds = max_seconds
        """Limit of one recording: the model attends to all of it at once, in memory that grows with the square of its
        length.
        """

    def encode(self, recordings: Sequence[AudioFile]) -> list[TokenRecord | Skipped]:
        """Encodes recordings to rows, in any order; those of equal frame count share a call of the model."""
        done: list[TokenRecord | Skipped] = []
        of_length: dict[int, list[tuple[AudioFile, np.ndarray]]] = defaultdict(list)
        for recording in recordings:
            try:
                pcm = self._read(recording)
                of_length[len(pcm) // INPUT_HOP].append((recording, pcm))
            except (StreamingError, OSError) as error:
                done.append(Skipped(recording.id, str(error)))
        for group in of_length.values():
            done += self._encode_group(group)
        return done

    def decode(self, row: TokenRecord, folder: Path) -> WrittenFile | Skipped:
        """Writes ID.wav into the folder (16 bits, at the codec's rate), unless a file of that name exists."""
        try:
            target = _place(row.id, folder)
            if target.exists():
                return WrittenFile(row.id, row.seconds, is_new=False)
            if row.model not in (self.codec.token_model, self.codec.public_name):
                raise TokenError(
                    f"the tokens are of model {row.model!r}, not of {self.codec.token_model!r}: choose it with --model"
                )
            audio = self.codec.decode(row.tokens)
            target.parent.mkdir(parents=True, exist_ok=True)
            _write(target, audio, self.codec.sample_rate)
        except (StreamingError, OSError, RuntimeError, MemoryError) as error:
            return Skipped(row.id, str(error) or "out of memory")
        return WrittenFile(row.id, len(audio) / self.codec.sample_rate, is_new=True)

    def _read(self, recording: AudioFile) -> np.ndarray:
        seconds = header_seconds(recording)
        pcm = read_audio(opened(recording)) if seconds <= self.max_seconds else np.zeros(0, np.float32)
        seconds = max(seconds, len(pcm) / INPUT_RATE)
        if seconds > self.max_seconds:
            raise InputError(f"{recording.id} is {seconds:.0f} s long, the limit is {self.max_seconds:g} s: split it")
        return pcm

    def _encode_group(self, group: list[tuple[AudioFile, np.ndarray]]) -> list[TokenRecord | Skipped]:
        try:
            tokens = self.codec.encode_batch([pcm for _, pcm in group])
        except (StreamingError, RuntimeError, MemoryError) as error:  # torch reports lack of memory as a RuntimeError
            if len(group) > 1:
                return [row for one in group for row in self._encode_group([one])]
            return [Skipped(group[0][0].id, str(error) or "out of memory")]
        return [
            TokenRecord(recording.id, its, len(pcm) / INPUT_RATE, self.codec.token_model)
            for (recording, pcm), its in zip(group, tokens, strict=True)
        ]


def _place(id: str, folder: Path) -> Path:
    """The audio file of a row. Raises InputError for an id that leads out of the folder."""
    path = PurePosixPath(id)
    if not path.name or path.is_absolute() or ".." in path.parts or "\0" in id:
        raise InputError(f"id {id!r} is not a path inside the output folder: rename it in the table")
    return folder / f"{path}.wav"


def _write(target: Path, audio: np.ndarray, rate: int) -> None:
    """A file that appears under its name when it is complete, and never replaces another."""
    partial = target.with_name(f".{target.name}.partial")
    try:
        with soundfile.SoundFile(partial, "w", rate, 1, "PCM_16", format="WAV") as file:
            file.buffer_write(pcm_to_bytes(audio), dtype="int16")
        os.link(partial, target)
    finally:
        partial.unlink(missing_ok=True)
