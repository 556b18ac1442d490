"""Sources of a command: a file, or a pipe as it arrives, and remarks on them for the user."""

import sys
from collections.abc import AsyncIterator, Iterator, Sequence

import numpy as np

from neucodec_streaming.client.audio_pipe import AudioPipe
from neucodec_streaming.client.commands.terminal import piped_tokens
from neucodec_streaming.client.errors import FileError
from neucodec_streaming.client.files import AudioReader, read_record, token_form
from neucodec_streaming.client.pipes import PIPE, is_pipe, is_stream, name_of
from neucodec_streaming.client.transfer import Source, packets_of
from neucodec_streaming.config import INPUT_RATE, TOKENS_PER_SECOND
from neucodec_streaming.errors import InputError
from neucodec_streaming.protocol.messages import BUNDLED, Ready
from neucodec_streaming.tags import TAGS

TOKENS_PER_PACKET = 25
PACKET_SECONDS = 0.02
OWN_TOKENS = (
    "the server's model is nano, which has tokens of its own: if these are tokens of NeuTTS or neuphonic/neucodec, they"
    " come out as noise, and need a server started with --model neuphonic/neucodec"
)


class FileSource:
    """A file: a fault in it ends the command without any output."""

    def __init__(
        self, packets: Source, seconds: float | None, notes: list[str], form: str | None = None, model: str = ""
    ) -> None:
        self.packets, self.seconds, self.notes = packets, seconds, notes
        self._form, self._model = form, model
        self.error: InputError | FileError | None = None

    def __aiter__(self) -> AsyncIterator[np.ndarray]:
        return packets_of(self.packets)

    def note_model(self, ready: Ready) -> None:
        """Notes tokens that will come out as noise: of another model or version, or in NeuTTS's forms."""
        if self._model not in ("", ready.model) and BUNDLED in (name_part(self._model), name_part(ready.model)):
            self.notes.append(
                f"the tokens are of {self._model}, the server's model is {ready.model}: they come out as noise"
            )
        if self._form in ("pt", "text") and ready.has_own_tokens:
            self.notes.append(OWN_TOKENS)


class PipeSource(FileSource):
    """A pipe: data before a fault counts; `error` is the fault."""

    async def __aiter__(self) -> AsyncIterator[np.ndarray]:
        came = False
        try:
            async for packet in packets_of(self.packets):
                yield packet
                came = True
        except (InputError, FileError) as error:
            if not came:
                raise
            self.error = error


def audio_source(path: str, raw_rate: int | None = None, packet_seconds: float = PACKET_SECONDS) -> FileSource:
    """Audio from a file or pipe; with `raw_rate` raw samples of that rate. Raises FileError."""
    _refuse_terminal(path)
    if raw_rate is not None or is_pipe(path, 0):
        pipe = AudioPipe(path, INPUT_RATE, packet_seconds, raw_rate)
        return PipeSource(pipe, None, pipe.notes)
    reader = AudioReader("/dev/stdin" if path == PIPE else path, INPUT_RATE, packet_seconds, name_of(path, 0))
    if reader.seconds == 0:
        raise FileError(f"{reader.name} contains no audio")
    return FileSource(reader, reader.seconds, reader.notes)


def token_source(path: str, form: str | None = None, tags: Sequence[str] | None = None) -> FileSource:
    """Tokens from a file or pipe. Raises FileError, TokenError, ConfigError."""
    form, tags = token_form(path, form), tags or TAGS
    if is_stream(path, 0):
        return PipeSource(piped_tokens(path, form, tags), None, [], form)
    record = read_record(path, form, tags)
    if not record.tokens.size:
        raise FileError(f"{path} contains no tokens")
    return FileSource(_cut(record.tokens), record.tokens.size / TOKENS_PER_SECOND, [], form, record.model)


def name_part(model: str) -> str:
    """The name of a model without the version of its weights."""
    return model.partition("-")[0]


def print_notes(notes: list[str], quiet: bool) -> None:
    """Prints the notes on standard error; with --json they are in the summary."""
    for note in [] if quiet else notes:
        print(f"neucodec: note: {note}", file=sys.stderr)


def _cut(tokens: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, tokens.size, TOKENS_PER_PACKET):
        yield tokens[start : start + TOKENS_PER_PACKET]


def _refuse_terminal(path: str) -> None:
    if path == PIPE and sys.stdin is not None and sys.stdin.isatty():
        raise FileError("standard input is a terminal: pipe audio into it or give a file; `neucodec mic` records")
