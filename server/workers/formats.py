"""Conversion between a session's wire bytes and the engine's arrays: PCM formats, rates, tokens."""

import numpy as np

from neucodec_streaming.audio import pcm_from_bytes, pcm_to_bytes
from neucodec_streaming.config import INPUT_RATE, OUTPUT_RATE
from neucodec_streaming.errors import AudioError
from neucodec_streaming.protocol.messages import StreamFormat
from neucodec_streaming.resampler import Resampler
from neucodec_streaming.tokens import tokens_from_bytes, tokens_to_bytes


class Formats:
    """Converts between a session's wire bytes and the engine's arrays."""

    def __init__(self, input: StreamFormat, output: StreamFormat, output_rate: int = OUTPUT_RATE) -> None:
        """`output_rate`: of the engine's audio."""
        self._input, self._output = input, output
        self._read_samples = 0  # of this stream
        self._from_wire = _resampler(input.rate, INPUT_RATE) if input.kind == "audio" else None
        self._to_wire = _resampler(output_rate, output.rate) if output.kind == "audio" else None

    def read(self, data: bytes) -> np.ndarray:
        """Decodes input bytes for the engine, as far as the resampler can."""
        if self._input.kind == "tokens":
            return tokens_from_bytes(data)
        try:
            audio = pcm_from_bytes(data, self._input.format)
        except AudioError as error:
            raise AudioError(f"after {self._read_samples} samples of the stream: {error}") from None
        self._read_samples += audio.size
        return audio if self._from_wire is None else self._from_wire.feed(audio)

    def read_rest(self) -> np.ndarray | None:
        """The rest of `read` at the end of an utterance."""
        self._read_samples = 0
        return None if self._from_wire is None else self._from_wire.flush()

    def written(self, data: np.ndarray) -> bytes:
        """Encodes the engine's output, as far as the resampler can."""
        if self._output.kind == "tokens":
            return tokens_to_bytes(data)
        return pcm_to_bytes(data if self._to_wire is None else self._to_wire.feed(data), self._output.format)

    def written_rest(self) -> bytes:
        """The rest of `written` at the end of an utterance."""
        return b"" if self._to_wire is None else pcm_to_bytes(self._to_wire.flush(), self._output.format)

    def clear(self) -> None:
        """Resets the stream."""
        self._read_samples = 0
        for resampler in (self._from_wire, self._to_wire):
            if resampler is not None:
                resampler.clear()


class EngineFormats:
    """The engine's own arrays as bytes, for a worker behind a converter."""

    def __init__(self, kind: str) -> None:
        """`kind`: of the session."""
        self._input_type, _ = engine_types(kind)

    def read(self, data: bytes) -> np.ndarray:
        """Unchanged, since the converter has checked it."""
        return np.frombuffer(data, self._input_type)

    def read_rest(self) -> None:
        """Empty: the converter has flushed."""

    def written(self, data: np.ndarray) -> bytes:
        """Unchanged."""
        return data.tobytes()

    def written_rest(self) -> bytes:
        """Empty."""
        return b""

    def clear(self) -> None:
        """Nothing to reset."""


def engine_types(kind: str) -> tuple[type, type]:
    """Types of the engine's input and output arrays in a session of that kind."""
    return np.uint16 if kind == "decode" else np.float32, np.uint16 if kind == "encode" else np.float32


def _resampler(input_rate: int, output_rate: int) -> Resampler | None:
    return None if input_rate == output_rate else Resampler(input_rate, output_rate)
