"""Input that a session has accepted and its worker has not: the server reads ahead so that it receives `clear`.

Payload is joined as it arrives, so a thousand single tokens become one piece. Ends of utterances and changes of voice
keep their places among the payload.
"""

from collections import deque

import numpy as np

from neucodec_streaming.errors import StreamingError
from neucodec_streaming.protocol.messages import ClientMessage, Prime, StreamFormat

END_BYTES = 64
"""Bytes that the end of an utterance counts for, and a voice in addition to its tokens."""

MESSAGE_BYTES = 64
"""Bytes that a pending message other than payload counts for."""


class EarlyMessages:
    """Messages that a client has sent before `ready`, and the errors of invalid ones, in order. `bytes`: their size."""

    def __init__(self) -> None:
        self._messages: list[bytes | ClientMessage | StreamingError] = []
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._messages)

    def put(self, message: bytes | ClientMessage | StreamingError) -> None:
        self._messages.append(message)
        self.bytes += len(message) if isinstance(message, bytes) else MESSAGE_BYTES
        if isinstance(message, Prime):
            self.bytes += 2 * len(message.tokens or ())

    def take(self) -> list[bytes | ClientMessage | StreamingError]:
        messages, self._messages, self.bytes = self._messages, [], 0
        return messages


class Backlog:
    """The backlog of one session with input of that format, oldest first. `bytes`: its size."""

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
        """Number of whole frames of payload."""
        return self._payload_bytes // self._hop_bytes

    def put(self, payload: bytes) -> None:
        last = self._items[-1] if self._items else None
        if not isinstance(last, bytearray):
            last = bytearray()
            self._items.append(last)
        last += payload
        self._payload_bytes += len(payload)
        self.bytes += len(payload)

    def end(self) -> None:
        """Appends the end of an utterance."""
        self._items.append(None)
        self.bytes += END_BYTES

    def prime(self, voice: np.ndarray) -> None:
        """Appends a change of voice, between utterances."""
        self._items.append(voice)
        self.bytes += END_BYTES + voice.nbytes

    def take(self, max_frames: int) -> bytes | np.ndarray | None:
        """Removes and returns the oldest payload, at most `max_frames` (1 or more); None for an utterance's end;
        or a voice.
        """
        first = self._items[0]
        if not isinstance(first, bytearray):
            self._items.popleft()
            self.bytes -= END_BYTES + (0 if first is None else first.nbytes)
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
        """Clears the backlog; returns the voice that would have been the last, if any."""
        voices = [item for item in self._items if isinstance(item, np.ndarray)]
        self._items.clear()
        self._payload_bytes = self.bytes = 0
        return voices[-1] if voices else None
