"""Audio and token files as streams of arrays: what libsndfile reads (WAV, FLAC...); `.tok`, `.npy`, `.pt`, `.txt`.

Audio comes in at any rate and channel count and leaves as float32 mono at the rate asked for, packet by packet, so that
an hour takes no more memory than a second. What cannot be read or written raises FileError (the file) or AudioError and
TokenError (what is in it).
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import soundfile

from neucodec_streaming.audio import check_audio, downmix, pcm_to_bytes
from neucodec_streaming.client.errors import FileError
from neucodec_streaming.errors import ConfigError, TokenError
from neucodec_streaming.resampler import Resampler
from neucodec_streaming.tokens import (
    TokenText,
    check_tokens,
    tokens_from_bytes,
    tokens_from_npy,
    tokens_from_text,
    tokens_to_bytes,
    tokens_to_npy,
    tokens_to_text,
)
from neucodec_streaming.torch_file import integers_from_pt

PIPE = "-"
FORMS = {".tok": "raw", ".bin": "raw", ".npy": "npy", ".pt": "pt", ".txt": "text"}
"""Ending of a token file -> its form."""
WRITABLE_FORMS = ("raw", "npy", "text")
_BLOCK_SAMPLES = 16_384


class AudioReader:
    """An audio file as packets of float32 mono at `rate`, each `packet_seconds` long but the last: iterate once.

    `seconds` is its length. Raises FileError when it is no audio file, AudioError when it holds NaN.
    """

    def __init__(self, path: str | Path, rate: int, packet_seconds: float = 0.02) -> None:
        self._file = _open_audio(path)
        self.seconds = self._file.frames / self._file.samplerate
        self.rate = rate
        self._packet_samples = max(1, round(rate * packet_seconds))

    def __iter__(self) -> Iterator[np.ndarray]:
        size, waiting = self._packet_samples, np.zeros(0, np.float32)
        for audio in self._resampled():
            waiting = np.concatenate([waiting, audio])
            whole = waiting.size // size * size
            yield from waiting[:whole].reshape(-1, size)
            waiting = waiting[whole:]
        if waiting.size:
            yield waiting

    def _resampled(self) -> Iterator[np.ndarray]:
        with self._file as file:
            resampler = Resampler(file.samplerate, self.rate)
            try:
                for block in file.blocks(_BLOCK_SAMPLES, dtype="float32", always_2d=True):
                    yield resampler.feed(check_audio(downmix(block)))
            except soundfile.LibsndfileError as error:
                raise FileError(f"{file.name} is damaged: {error}") from None
            yield resampler.flush()


def read_audio(path: str | Path, rate: int) -> np.ndarray:
    """A whole audio file: float32 mono (n,) at `rate`."""
    packets = list(AudioReader(path, rate, packet_seconds=1.0))
    return np.concatenate(packets) if packets else np.zeros(0, np.float32)


class WavWriter:
    """A mono 16-bit WAV file that grows as audio comes: a context manager with write(float32 (m,))."""

    def __init__(self, path: str | Path, rate: int) -> None:
        try:
            self._file = soundfile.SoundFile(path, "w", samplerate=rate, channels=1, format="WAV", subtype="PCM_16")
        except (soundfile.LibsndfileError, OSError) as error:
            raise FileError(f"{path} cannot be written: {error}") from None
        self.samples = 0

    def write(self, audio: np.ndarray) -> None:
        """Appends samples, clipped at full scale."""
        try:
            self._file.buffer_write(pcm_to_bytes(audio), dtype="int16")
        except soundfile.LibsndfileError as error:
            raise FileError(f"{self._file.name} cannot be written on: {error}") from None
        self.samples += audio.size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def token_form(path: str | Path, form: str | None = None) -> str:
    """The form of a token file: `form` if given, else by its ending; text for a pipe. Raises ConfigError."""
    if form is not None:
        return form
    if str(path) == PIPE:
        return "text"
    suffix = Path(path).suffix.lower()
    if suffix not in FORMS:
        raise ConfigError(f"{path} ends in {suffix!r}: name it {', '.join(FORMS)}, or give --form")
    return FORMS[suffix]


def read_tokens(path: str | Path, form: str | None = None) -> np.ndarray:
    """A whole token file -> uint16 (n,). Raises FileError, or TokenError naming the file and what is wrong in it."""
    form = token_form(path, form)
    try:
        payload = Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}") from None
    readers = {"raw": tokens_from_bytes, "npy": tokens_from_npy, "pt": _tokens_from_pt, "text": _tokens_from_utf8}
    try:
        return readers[form](payload)
    except TokenError as error:
        raise TokenError(f"{path}: {error}") from None


class TokenPipe:
    """Tokens out of the bytes of a pipe, raw or text: feed(bytes) -> uint16 (n,), and finish() at its end."""

    def __init__(self, form: str) -> None:
        if form not in ("raw", "text"):
            raise ConfigError(f"form {form!r} cannot come through a pipe: give --form raw or text")
        self._text = TokenText() if form == "text" else None
        self._rest = b""

    def feed(self, payload: bytes) -> np.ndarray:
        """The tokens that are complete now. Raises TokenError."""
        if self._text is not None:
            return self._text.feed(payload.decode("ascii", "replace"))
        payload = self._rest + payload
        whole = len(payload) // 2 * 2
        self._rest = payload[whole:]
        return tokens_from_bytes(payload[:whole])

    def finish(self) -> None:
        """Raises TokenError when the pipe ended inside a token."""
        if self._rest:
            raise TokenError("the pipe ended in the middle of a token: raw tokens have 2 bytes each")


class TokenWriter:
    """A token file that grows as tokens come (`.npy` is written at the end): a context manager with write(tokens)."""

    def __init__(self, path: str | Path, form: str | None = None) -> None:
        self._form = token_form(path, form)
        if self._form not in WRITABLE_FORMS or (str(path) == PIPE and self._form == "npy"):
            raise ConfigError(f"tokens cannot be written to {path} as {self._form}: use .tok, .npy or .txt")
        try:
            self._file: Any = sys.stdout.buffer if str(path) == PIPE else Path(path).open("wb")  # noqa: SIM115
        except OSError as error:
            raise FileError(f"{path} cannot be written: {error.strerror or error}") from None
        self._owned = str(path) != PIPE
        self._kept: list[np.ndarray] = []
        self.tokens = 0

    def write(self, tokens: np.ndarray) -> None:
        """Appends tokens (n,)."""
        self.tokens += tokens.size
        if self._form == "npy":
            self._kept.append(tokens)
            return
        self._file.write(tokens_to_bytes(tokens) if self._form == "raw" else tokens_to_text(tokens).encode())
        if not self._owned:
            self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._form == "npy":
            self._file.write(tokens_to_npy(np.concatenate([*self._kept, np.zeros(0, np.uint16)])))
        elif self._form == "text":
            self._file.write(b"\n")
        if self._owned:
            self._file.close()
        else:
            self._file.flush()


def _open_audio(path: str | Path) -> soundfile.SoundFile:
    if not Path(path).is_file():
        raise FileError(f"{path} is no file: give a WAV or FLAC file")
    try:
        return soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, OSError) as error:
        raise FileError(f"{path} cannot be read as audio ({error}): give a WAV or FLAC file") from None


def _tokens_from_pt(payload: bytes) -> np.ndarray:
    return check_tokens(integers_from_pt(payload))


def _tokens_from_utf8(payload: bytes) -> np.ndarray:
    return tokens_from_text(payload.decode("utf-8", "replace"))
