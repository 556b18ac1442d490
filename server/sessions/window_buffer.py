"""Collects a client's packets until they complete a window, since nothing can be computed before.

The worker is then woken once a chunk instead of once a packet, and gets the chunk in one piece. Formats with invalid
values are not collected: the worker checks them, and the client gets its error at once.
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
        """Discards collected input; a stream starts."""
        self._held: list[bytes] = []
        self._missing_bytes = self._first_bytes

    def put(self, payload: bytes) -> bytes:
        """Appends input; returns everything collected if it completes a window, else nothing."""
        self._held.append(payload)
        self._missing_bytes -= len(payload)
        if self._missing_bytes > 0 and self._holds:
            return b""
        self._missing_bytes = self._chunk_bytes - -self._missing_bytes % self._chunk_bytes
        return self._joined()

    def end(self) -> bytes:
        """The stream ends: returns everything collected."""
        rest = self._joined()
        self.clear()
        return rest

    def _joined(self) -> bytes:
        held, self._held = self._held, []
        return held[0] if len(held) == 1 else b"".join(held)
