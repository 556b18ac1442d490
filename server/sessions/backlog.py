"""Input that a session has taken and its worker has not: the server reads ahead of computing, so that `clear` is heard.

Payload is joined as it comes: a thousand tokens in a thousand messages are one piece. Ends of utterances, and voices
behind them, stay where they were between the payload.
"""

from collections import deque

import numpy as np

from neucodec_streaming.protocol.messages import StreamFormat

END_BYTES = 64
"""What the end of an utterance counts for, and a voice beside its tokens."""


class Backlog:
    """Of one session whose input has that format, oldest first. `bytes` is what waits."""

    def __init__(self, input: StreamFormat) -> None:
        self._unit_bytes = input.unit_bytes
        self._hop_bytes = input.hop * input.unit_bytes
        self._items: deque[bytearray | np.ndarray | None] = deque()  # None: an utterance ends there
        self._payload_bytes = 0
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._items)

    @property
    def frames(self) -> int:
        """Whole frames of payload."""
        return self._payload_bytes // self._hop_bytes

    def put(self, payload: bytes) -> None:
        """More payload."""
        last = self._items[-1] if self._items else None
        if not isinstance(last, bytearray):
            last = bytearray()
            self._items.append(last)
        last += payload
        self._payload_bytes += len(payload)
        self.bytes += len(payload)

    def end(self) -> None:
        """The utterance ends here."""
        self._items.append(None)
        self.bytes += END_BYTES

    def prime(self, voice: np.ndarray) -> None:
        """Streams start in this voice from here on, between utterances."""
        self._items.append(voice)
        self.bytes += END_BYTES + voice.nbytes

    def take(self, max_frames: int) -> bytes | np.ndarray | None:
        """The oldest payload, at most so many frames (one or more), None for the end of an utterance, or a voice."""
        first = self._items[0]
        if first is None:
            self._items.popleft()
            self.bytes -= END_BYTES
            return None
        if isinstance(first, np.ndarray):
            self._items.popleft()
            self.bytes -= END_BYTES + first.nbytes
            return first
        size = min(len(first), max_frames * self._hop_bytes)
        taken = bytes(first[:size])
        if size == len(first):
            self._items.popleft()
        else:
            del first[:size]
        self._payload_bytes -= size
        self.bytes -= size
        return taken

    def clear(self) -> np.ndarray | None:
        """Drops everything; the voice that was to be the last, if there is one."""
        voices = [item for item in self._items if isinstance(item, np.ndarray)]
        self._items.clear()
        self._payload_bytes = self.bytes = 0
        return voices[-1] if voices else None
