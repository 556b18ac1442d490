"""A stream of frames as its listener receives it: ordered arrays with reported and concealed losses, and a queue of
events for the iteration. Sans-I/O except for the timer that ends the wait for missing frames.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from neucodec_streaming.client.errors import DeadlineExceeded
from neucodec_streaming.client.payload import from_payload
from neucodec_streaming.errors import StreamingError
from neucodec_streaming.protocol.concealment import concealed
from neucodec_streaming.protocol.messages import StreamFormat
from neucodec_streaming.protocol.mqtt.receiver import DEFAULT_REORDER, GRACE_S, Loss, Piece, Receiver
from neucodec_streaming.protocol.mqtt.topics import MAX_CONCEALED_FRAMES


@dataclass(frozen=True)
class Missing:
    """`units` (samples or tokens) before `position` did not arrive. `is_concealed`: they are filled in; else they are
    omitted.
    """

    units: int
    position: int
    is_concealed: bool


@dataclass(frozen=True)
class UtteranceEnded:
    """The sender ended an utterance at `position`."""

    position: int


class StreamReader:
    """Calls `on_event` with Audio or Tokens, Missing, UtteranceEnded, and events that were `put`.

    `position`: that of the first unit; None to join a running stream. `loss`: counts to be continued.
    """

    def __init__(
        self,
        stream: StreamFormat,
        on_event: Callable[[Any], None],
        position: int | None = None,
        loss: Loss | None = None,
    ) -> None:
        self._stream = stream
        self._on_event = on_event
        self._receiver = Receiver(stream.unit_bytes, position, DEFAULT_REORDER, loss)
        self._before = b""
        self._grace: asyncio.TimerHandle | None = None

    @property
    def loss(self) -> Loss:
        """Statistics of the stream."""
        return self._receiver.loss

    @property
    def position(self) -> int:
        """Position of the next unit."""
        return self._receiver.position or 0

    def receive(self, data: bytes) -> None:
        """Accepts a frame. Raises InputError."""
        position = self.position
        self._hand_on(self._receiver.receive(data))
        self._await_missing(restart=self.position != position)

    def put(self, event: Any, position: int) -> None:
        """Queues an event after everything before `position`."""
        self._hand_on(self._receiver.put(event, position))
        self._await_missing(restart=False)

    def close(self) -> None:
        """Stops waiting for missing frames."""
        if self._grace is not None:
            self._grace.cancel()
        self._give_up()

    def _hand_on(self, items: list[Any]) -> None:
        for item in items:
            if not isinstance(item, Piece):
                self._on_event(item)
                continue
            filling = b""
            if item.lost:
                is_concealed = bool(self._before) and item.lost <= MAX_CONCEALED_FRAMES * self._stream.hop
                self._on_event(Missing(item.lost, item.position, is_concealed))
                if is_concealed:
                    filling = concealed(self._stream, self._before, item.lost, item.payload)
            payload = filling + item.payload
            if payload:
                self._before = payload[-self._stream.unit_bytes :]
                position = item.position - len(filling) // self._stream.unit_bytes
                self._on_event(from_payload(payload, self._stream, position))
            if item.last:
                self._before = b""
                self._on_event(UtteranceEnded(self.position))

    def _await_missing(self, restart: bool) -> None:
        """Stops waiting for missing frames GRACE_S after the stream last advanced."""
        if self._grace is not None and (restart or not self._receiver.waits):
            self._grace.cancel()
            self._grace = None
        if self._grace is None and self._receiver.waits:
            self._grace = asyncio.get_running_loop().call_later(GRACE_S, self._give_up)

    def _give_up(self) -> None:
        self._grace = None
        self._hand_on(self._receiver.give_up())


class Inbound:
    """Events for the iteration, until the last one or a failure."""

    def __init__(self) -> None:
        self._events: deque[Any] = deque()
        self._changed = asyncio.Event()
        self._failure: StreamingError | None = None
        self.is_over = False

    def add(self, event: Any) -> None:
        """Queues an event; the sender bounds the queue by sending only a limited way ahead of the taken output."""
        self._events.append(event)
        self._changed.set()

    def finish(self, failure: StreamingError | None = None) -> None:
        """No event follows."""
        self.is_over = True
        self._failure = self._failure or failure
        self._changed.set()

    def check(self) -> None:
        """Ends the iteration with an error."""
        if self._failure is not None:
            raise self._failure

    async def next(self, timeout_s: float | None) -> Any:
        """The next event, or None after the last. Raises the failure, or DeadlineExceeded."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self._events and not self.is_over:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise DeadlineExceeded(
                f"no answer over the broker within {timeout_s:g} s: check that a bridge runs"
            ) from None
        if self._events:
            return self._events.popleft()
        self.check()
        return None
