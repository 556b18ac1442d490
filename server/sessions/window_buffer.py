"""Packets of a client, held until they complete a window: before that, nothing can be computed from them.

So a worker is woken once a chunk and not once a packet, and gets the chunk in one piece. Formats that can be invalid
are not held: the worker checks them, and the client gets its error at once.
"""

from neucodec_streaming.config import INPUT_RATE, StreamConfig, input_needed
from neucodec_streaming.formats import PCM_FORMATS
from neucodec_streaming.protocol.messages import StreamFormat
from neucodec_streaming.resampler import Resampler


class WindowBuffer:
    """Buffers one session's input; holds at most one window."""

    def __init__(self, input: StreamFormat, config: StreamConfig) -> None:
        self._holds = input.kind == "tokens" or not PCM_FORMATS[input.format].can_be_invalid
        first = config.window_frames
        if input.kind == "audio":
            first = Resampler(input.rate, INPUT_RATE).needed(input_needed("encode", config, config.chunk_frames))
        self._first_bytes = first * input.unit_bytes
        self._chunk_bytes = config.chunk_frames * input.hop * input.unit_bytes
        self.clear()

    def clear(self) -> None:
        """What is held is dropped, and a stream begins."""
        self._held: list[bytes] = []
        self._missing_bytes = self._first_bytes

    def put(self, payload: bytes) -> bytes:
        """More input -> all that is held, if that completes a window; otherwise nothing."""
        self._held.append(payload)
        self._missing_bytes -= len(payload)
        if self._missing_bytes > 0 and self._holds:
            return b""
        self._missing_bytes = self._chunk_bytes - -self._missing_bytes % self._chunk_bytes
        return self._joined()

    def end(self) -> bytes:
        """The stream ends here -> what is held."""
        rest = self._joined()
        self.clear()
        return rest

    def _joined(self) -> bytes:
        held, self._held = self._held, []
        return held[0] if len(held) == 1 else b"".join(held)
