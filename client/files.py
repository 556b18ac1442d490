"""Audio files (everything that libsndfile reads and writes) and token files (neucodec_streaming.token_files).

Audio is read at any rate and channel count and converted to float32 mono at the given rate, packet by packet, so an
hour takes no more memory than a second. It is read to its true end even if its header is wrong, or refused. Output
appears under its name when it is complete (output_file.py), or goes to a pipe at once (pipes.py). Raises FileError for
a file that cannot be read or written, AudioError and TokenError for its content.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from neucodec_streaming.audio import pcm_to_bytes
from neucodec_streaming.client.errors import FileError
from neucodec_streaming.client.output_file import Writer
from neucodec_streaming.client.packets import Packetizer
from neucodec_streaming.client.pipes import is_stream
from neucodec_streaming.client.sound_headers import open_corrected
from neucodec_streaming.errors import ConfigError, TokenError
from neucodec_streaming.formats import streaming_wav_header
from neucodec_streaming.tags import TAGS
from neucodec_streaming.token_files import FORMS, WRITABLE_FORMS, record_from_bytes, record_to_bytes, require_form
from neucodec_streaming.tokens import (
    TokenLists,
    TokenRecord,
    TokenText,
    record_of,
    tokens_from_bytes,
    tokens_to_bytes,
    tokens_to_json,
    tokens_to_text,
)

PIPED_FORMS = ("raw", "text", "json")
AUDIO_ENDINGS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".aiff": ("AIFF", "PCM_16"),
    ".aif": ("AIFF", "PCM_16"),
    ".au": ("AU", "PCM_16"),
    ".caf": ("CAF", "PCM_16"),
    ".w64": ("W64", "PCM_16"),
    ".rf64": ("RF64", "PCM_16"),
    ".raw": ("RAW", "PCM_16"),
    ".pcm": ("RAW", "PCM_16"),
}
"""Extension of an audio output -> libsndfile's format and encoding."""
AUDIO_FORMATS = {"wav": AUDIO_ENDINGS[".wav"], "raw": AUDIO_ENDINGS[".raw"]}
"""Name of a format that a pipe can carry -> libsndfile's format and encoding."""
RAW_ENDINGS = tuple(ending for ending, (kind, _) in AUDIO_ENDINGS.items() if kind == "RAW")
_BLOCK_SAMPLES = 16_384
_MAX_HEADER_BYTES = 8192
_UNKNOWN_FRAMES = 1 << 62
_SAMPLE_BYTES = {"PCM_S8": 1, "PCM_U8": 1, "ULAW": 1, "ALAW": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4}
_SAMPLE_BYTES |= {"FLOAT": 4, "DOUBLE": 8}
_CHUNKED = ("WAV", "WAVEX", "RF64", "AIFF", "SVX", "CAF", "W64", "FLAC", "OGG", "MP3")
"""Formats that may contain other things than audio, or need no size of it."""
_UNSAFE = {
    "SDS": "libsndfile does not notice when it is truncated",
    "PAF": "libsndfile does not notice when it is truncated",
    "SD2": "its header is in another file",
}
"""Formats that libsndfile opens but misreads, and why."""


class AudioReader:
    """An audio file as packets of float32 mono at `rate`, each `packet_seconds` long except the last; iterate once.

    `seconds` is its length, None if the header does not say; `notes` are remarks for the user, complete at the end.
    Raises FileError for a damaged file or one without audio, AudioError for unusable samples.
    """

    def __init__(
        self, source: str | Path | BinaryIO, rate: int, packet_seconds: float = 0.02, name: str | None = None
    ) -> None:
        self.name = name or str(source)
        self.rate = rate
        self.notes: list[str] = []
        stream = self._stream = self._opened(source)
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        try:
            self._file = _SequentialFile(stream if self.notes or stream is source else str(source))
            _refuse_untrue(self._file, stream, size)
            self._packets = Packetizer(self.name, self._file.samplerate, rate, max(1, round(rate * packet_seconds)))
        except (soundfile.LibsndfileError, OSError, FileError, TypeError) as error:  # TypeError: a file named .raw
            stream.close()
            if Path(self.name).suffix.lower() in RAW_ENDINGS:
                raise FileError(
                    f"{self.name} is raw audio, without a header: convert it to WAV, or pass --rate to encode"
                ) from None
            reason = getattr(error, "error_string", str(error)).rstrip(".")
            raise FileError(f"{self.name} cannot be read as audio ({reason}): give a WAV or FLAC file") from None
        frames = self._file.frames
        self.seconds = frames / self._file.samplerate if frames < _UNKNOWN_FRAMES else None

    def _opened(self, source: str | Path | BinaryIO) -> BinaryIO:
        """The bytes of an audio file, with its header corrected if needed."""
        if not isinstance(source, str | Path):
            return source
        try:
            status = os.stat(source)
            if not stat.S_ISREG(status.st_mode) or not status.st_size:
                fault = "is empty" if stat.S_ISREG(status.st_mode) else "is no file"
                raise FileError(f"{self.name} {fault}: give a WAV or FLAC file")
            file, note = open_corrected(source)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            raise FileError(f"{self.name} cannot be read: {reason or error}") from None
        if note is not None:
            self.notes.append(f"{self.name}: {note}")
        return file

    def __iter__(self) -> Iterator[np.ndarray]:
        with self._stream, self._file as file:
            while True:
                try:
                    block = file.read(_BLOCK_SAMPLES, dtype="float32", always_2d=True)
                except soundfile.LibsndfileError as error:
                    raise FileError(
                        f"{self.name} is damaged at {self._packets.seconds:.2f} s: {error.error_string}"
                    ) from None
                if not len(block):
                    break
                yield from self._packets.feed(block)
            yield from self._packets.flush()
        if self.seconds is not None and self._packets.samples < file.frames:
            self.notes.append(
                f"{self.name} is truncated: its header declares {self.seconds:.2f} s, but it contains"
                f" {self._packets.seconds:.2f} s"
            )
        self.notes += self._packets.notes


class _SequentialFile(soundfile.SoundFile):
    """A file read from start to end without seeking, which is inexact or impossible in many encodings, and without
    using the number of frames in the header.
    """

    def seekable(self) -> bool:
        return False


def _refuse_untrue(file: soundfile.SoundFile, stream: BinaryIO, size: int) -> None:
    """Raises FileError if libsndfile reads something else than the file contains."""
    if file.format in _UNSAFE:
        raise FileError(f"a {file.format} file, {_UNSAFE[file.format]}")
    if file.format == "VOC" and file.subtype in ("ULAW", "ALAW"):
        raise FileError(f"a VOC file of {file.subtype}, of which libsndfile reads beyond the end")
    if file.format == "OGG" and not file.frames and not _has_last_page(stream, size):
        raise FileError("it is truncated")
    if file.format not in _CHUNKED and file.subtype in _SAMPLE_BYTES:
        rest = size - file.frames * file.channels * _SAMPLE_BYTES[file.subtype]
        if rest > _MAX_HEADER_BYTES:
            raise FileError(f"its header declares {file.frames} frames, but {rest} more bytes follow")


def _has_last_page(stream: BinaryIO, size: int) -> bool:
    """Whether an Ogg file ends with the page that is marked as the last one (RFC 3533, section 6)."""
    position = stream.tell()
    stream.seek(max(0, size - 65_536))
    end = stream.read()
    stream.seek(position)
    page = end.rfind(b"OggS")
    return page >= 0 and len(end) > page + 5 and bool(end[page + 5] & 4)


def read_audio(path: str | Path, rate: int) -> np.ndarray:
    """A whole audio file as float32 mono (n,) at `rate`."""
    packets = list(AudioReader(path, rate, packet_seconds=1.0))
    return np.concatenate(packets) if packets else np.zeros(0, np.float32)


def audio_format(path: str | Path, format: str | None = None) -> tuple[str, str]:
    """libsndfile's format and encoding of an audio output: by `format`, else by its extension; WAV for a pipe.

    Raises ConfigError.
    """
    piped, suffix = is_stream(path, 1), Path(path).suffix.lower()
    chosen = AUDIO_FORMATS.get(format or "wav") if format or (piped and not suffix) else AUDIO_ENDINGS.get(suffix)
    if chosen is None:
        raise ConfigError(
            f"{path} has no audio extension: use {', '.join(AUDIO_ENDINGS)},"
            f" or give --format {' or '.join(AUDIO_FORMATS)}"
        )
    if piped and chosen not in AUDIO_FORMATS.values():
        raise ConfigError(f"{path} is a pipe or device: use --format {' or '.join(AUDIO_FORMATS)}")
    if not soundfile.check_format(*chosen):
        raise ConfigError(f"{path}: the installed libsndfile cannot write {' '.join(chosen)}: use .wav")
    return chosen


@contextmanager
def _whole(path: str | Path) -> Iterator[None]:
    """Translates errors of writing a file."""
    try:
        yield
    except (soundfile.LibsndfileError, OSError, AssertionError) as error:  # the last one: fewer were written
        reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
        raise FileError(f"{path} could not be written to its end: {reason or 'is the disk full?'}") from None


class AudioWriter(Writer):
    """A mono audio file written as audio arrives: a context manager with write(float32 (m,)).

    The format is that of the extension or `format` (`audio_format`); a pipe gets WAV with an open length in the header,
    or raw samples, 16 bits little-endian.
    """

    def __init__(self, path: str | Path, rate: int, format: str | None = None, keep: bool = False) -> None:
        kind, encoding = audio_format(path, format)
        super().__init__(path, keep)
        self._path, self.samples = path, 0
        self._file: soundfile.SoundFile | None = None
        self._header = b"" if kind == "RAW" else streaming_wav_header(rate)
        if self.pipe is not None:
            return
        assert self.output is not None
        endian = "LITTLE" if kind == "RAW" else "FILE"
        try:
            self._file = soundfile.SoundFile(
                self.output.temporary, "w", samplerate=rate, channels=1, format=kind, subtype=encoding, endian=endian
            )
        except (soundfile.LibsndfileError, OSError) as error:
            self.output.discard()
            raise FileError(f"{path} cannot be written: {error}") from None

    def write(self, audio: np.ndarray) -> None:
        """Appends samples, clipped at full scale."""
        self.has_written = True
        self.samples += audio.size
        if self.pipe is not None:
            self.pipe.write(self._header + pcm_to_bytes(audio))
            self._header = b""
        elif self._file is not None:
            with _whole(self._path):
                self._file.buffer_write(pcm_to_bytes(audio), dtype="int16")

    def _finish(self, is_whole: bool) -> None:
        if self.pipe is not None:
            if is_whole:
                self.pipe.write(self._header)
            self.pipe.close()
        elif self._file is not None:
            with _whole(self._path):
                self._file.close()


def token_form(path: str | Path, form: str | None = None, *, writing: bool = False) -> str:
    """The form of a token file: `form` if given, else by its extension; text for a pipe. Raises ConfigError."""
    piped, suffix = is_stream(path, int(writing)), Path(path).suffix.lower()
    form = form or FORMS.get(suffix) or ("text" if piped else None)
    if form is None:
        kinds = ", ".join(name for name, kind in FORMS.items() if not writing or kind in WRITABLE_FORMS)
        raise ConfigError(f"{path} has no token-file extension: use {kinds}, or give --form")
    if piped and form not in PIPED_FORMS:
        raise ConfigError(f"{path}: form {form!r} cannot be written to a pipe: use --form {', '.join(PIPED_FORMS)}")
    if writing and form not in WRITABLE_FORMS:
        raise ConfigError(f"{path}: tokens cannot be written as {form}: use {', '.join(WRITABLE_FORMS)}")
    require_form(form)
    return form


def read_tokens(path: str | Path, form: str | None = None, tags: Sequence[str] = TAGS) -> np.ndarray:
    """Reads a whole token file as uint16 (n,). Raises as read_record does."""
    return read_record(path, form, tags).tokens


def read_record(path: str | Path, form: str | None = None, tags: Sequence[str] = TAGS) -> TokenRecord:
    """Reads a whole token file and the model of its tokens. Raises FileError, or TokenError naming the file and the
    fault.
    """
    form = token_form(path, form)
    try:
        payload = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        return record_from_bytes(payload, form, tags)
    except TokenError as error:
        raise TokenError(f"{path}: {error}") from None


class TokenPipe:
    """Decodes tokens from a pipe: feed(bytes) -> uint16 (n,), and finish() -> the last ones.

    Raises TokenError in the call after the one that returned the tokens before a bad one.
    """

    def __init__(self, form: str, tags: Sequence[str] = TAGS) -> None:
        if form not in PIPED_FORMS:
            raise ConfigError(f"form {form!r} cannot be read from a pipe: use --form {', '.join(PIPED_FORMS)}")
        self._text = TokenText(tags) if form == "text" else TokenLists() if form == "json" else None
        self._rest = b""
        self._bytes = self._tokens = 0

    def feed(self, payload: bytes) -> np.ndarray:
        """The complete tokens."""
        self._bytes += len(payload)
        if self._text is not None:
            tokens = self._text.feed(payload.decode("ascii", "replace"))
        else:
            payload = self._rest + payload
            whole = len(payload) // 2 * 2
            self._rest = payload[whole:]
            tokens = tokens_from_bytes(payload[:whole])
        self._tokens += tokens.size
        return tokens

    def finish(self) -> np.ndarray:
        """Raises TokenError if the pipe had no token or ended inside one."""
        tokens = np.zeros(0, np.uint16) if self._text is None else self._text.finish()
        self._tokens += tokens.size
        if self._rest:
            raise TokenError(f"the pipe ends in the middle of token {self._tokens}: raw tokens have 2 bytes each")
        if not self._tokens:
            raise TokenError("the pipe contained no tokens" if self._bytes else "the pipe was empty")
        return tokens


class TokenWriter(Writer):
    """A token file written as tokens arrive: a context manager with write(tokens).

    .tok, text and pipes are written at once; other forms at the end, and all but .npy record that their tokens are of
    `model`, a name as in `ready`.
    """

    def __init__(self, path: str | Path, form: str | None = None, keep: bool = False, model: str = "") -> None:
        self._form = token_form(path, form, writing=True)
        super().__init__(path, keep)
        self._path, self._model = path, model
        self._is_whole = self.pipe is None and self._form not in ("raw", "text")
        self._kept: list[np.ndarray] = []
        self.tokens = 0
        self._file: BinaryIO | None = None
        if self.output is not None:
            self._file = open(self.output.temporary, "wb")  # noqa: SIM115 (closed by _finish)

    def write(self, tokens: np.ndarray) -> None:
        """Appends tokens (n,)."""
        self.has_written = True
        if self._is_whole:
            self._kept.append(tokens)
        elif self._form == "json":
            self._put(
                (", " if self.tokens else "[").encode() * bool(tokens.size) + tokens_to_json(tokens)[1:-1].encode()
            )
        else:
            self._put(tokens_to_bytes(tokens) if self._form == "raw" else tokens_to_text(tokens).encode())
        self.tokens += tokens.size

    def _put(self, payload: bytes) -> None:
        if self.pipe is not None:
            self.pipe.write(payload)
            return
        assert self._file is not None
        with _whole(self._path):
            self._file.write(payload)

    def _finish(self, is_whole: bool) -> None:
        if is_whole:
            self._put_last()
        if self.pipe is not None:
            self.pipe.close()
            return
        assert self._file is not None
        with _whole(self._path):
            self._file.close()

    def _put_last(self) -> None:
        if self._is_whole:
            tokens = np.concatenate([*self._kept, np.zeros(0, np.uint16)])
            self._put(record_to_bytes(record_of(tokens, self._model, Path(self._path).stem), self._form))
        elif self._form == "json":
            self._put(b"]\n" if self.tokens else b"[]\n")
        elif self._form == "text":
            self._put(b"\n")
