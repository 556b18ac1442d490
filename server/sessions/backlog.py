"""Input that a session has taken and its worker has not: the server reads ahead of computing, so that `clear` is heard.

Payload is joined as it comes: a thousand tokens in a thousand messages are one piece. Ends of utterances stay where
they were between the payload.
"""

from collections import deque

from neucodec_streaming.protocol.messages import StreamFormat

END_BYTES = 64
"""What the end of an utterance counts for."""


class Backlog:
    """Of one session whose input has that format, oldest first. `bytes` is what waits."""

    def __init__(self, input: StreamFormat) -> None:
        self._unit_bytes = input.unit_bytes
        self._hop_bytes = input.hop * input.unit_bytes
        self._items: deque[bytearray | None] = deque()  # None: an utterance ends there
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
        if not self._items or self._items[-1] is None:
            self._items.append(bytearray())
        last = self._items[-1]
        assert last is not None, "just made"
        last += payload
        self._payload_bytes += len(payload)
        self.bytes += len(payload)

    def end(self) -> None:
        """The utterance ends here."""
        self._items.append(None)
        self.bytes += END_BYTES

    def take(self, max_frames: int) -> bytes | None:
        """The oldest payload, at most so many frames (one or more), or None for the end of an utterance."""
        first = self._items[0]
        if first is None:
            self._items.popleft()
            self.bytes -= END_BYTES
            return None
        size = min(len(first), max_frames * self._hop_bytes)
        taken = bytes(first[:size])
        if size == len(first):
            self._items.popleft()
        else:
            del first[:size]
        self._payload_bytes -= size
        self.bytes -= size
        return taken

    def clear(self) -> None:
        """Drops everything."""
        self._items.clear()
        self._payload_bytes = self.bytes = 0
