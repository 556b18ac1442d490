"""Reorders the frames of one stream and detects and counts loss, repeats and reordering. Sans-I/O.

The receiver waits for a missing frame until a later one repeats its units, until `reorder` later ones have arrived, or
until the owner, who has the clock, calls `give_up`. In-order units are passed on at once. Events at a stream position
(a flush, an answer) are inserted among the units, since they travel on another topic that may be faster or slower.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from neucodec_streaming.protocol.mqtt.packets import POSITIONS, SEQUENCES, Frame, parse_frame

DEFAULT_REORDER = 3
GRACE_S = 0.5
"""How long the owner should wait for missing frames while the stream does not advance."""
_REMEMBERED = 1024
"""Number of abandoned frames that are still distinguished from repeats when they arrive."""


@dataclass
class Loss:
    """Statistics of a stream: frames received in time, lost, repeated, reordered but in time, and late; units lost, and
    units recovered from repetitions.
    """

    frames: int = 0
    lost_frames: int = 0
    duplicate_frames: int = 0
    reordered_frames: int = 0
    late_frames: int = 0
    lost_units: int = 0
    recovered_units: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True)
class Piece:
    """The next units of the stream: `payload` from `position`, after `lost` missing units; `last` ends an utterance.

    `position` - `lost` follows the previous piece, unless the sender skipped a part.
    """

    position: int
    payload: bytes
    lost: int = 0
    last: bool = False


class Receiver:
    """Turns receive(bytes) and put(event, position) into ordered pieces and events.

    `position`: that of the next unit; None starts at the first frame, as a late listener must. Positions given to `put`
    and `drop_until` count modulo 2^32. `loss`: counts to be continued.
    """

    def __init__(
        self, unit_bytes: int, position: int | None = 0, reorder: int = DEFAULT_REORDER, loss: Loss | None = None
    ) -> None:
        self.position = position
        self.loss = Loss() if loss is None else loss
        self._unit_bytes = unit_bytes
        self._reorder = reorder
        self._source: int | None = None
        self._next = 0  # sequence without wrapping
        self._broken = False  # abandoned frames before `_next`
        self._floor = 0  # everything before was dropped
        self._held: dict[int, Frame] = {}
        self._given_up: deque[int] = deque(maxlen=_REMEMBERED)
        self._events: deque[tuple[int, Any]] = deque()  # with their positions

    @property
    def waits(self) -> bool:
        """Whether units are held back for missing frames."""
        return bool(self._held or self._events)

    def receive(self, data: bytes) -> list[Any]:
        """Accepts a frame and returns the output it completes, in order. Raises InputError for an invalid frame."""
        frame = parse_frame(data, self._unit_bytes)
        ready: list[Any] = []
        if frame.source != self._source:
            ready += self._release_frames()
            self._begin(frame)
        frame = self._unwrapped(frame)
        assert self.position is not None, "a frame has come"
        if frame.sequence < self._next and frame.position > self.position:  # half the numbers of a sequence are lost
            ready += self._release_frames()
            self._begin(frame)
            frame = self._unwrapped(frame)
        if frame.sequence < self._next and frame.sequence in self._given_up:
            self._given_up.remove(frame.sequence)
            self.loss.late_frames += 1
        elif frame.sequence < self._next or frame.sequence in self._held:
            self.loss.duplicate_frames += 1
        else:
            self.loss.frames += 1
            self.loss.reordered_frames += bool(self._held) and frame.sequence < max(self._held)
            self._held[frame.sequence] = frame
            ready += self._in_order()
        return ready + list(self._due_events())

    def put(self, event: Any, position: int) -> list[Any]:
        """Queues `event` after the units before `position` and after earlier events."""
        self._events.append((self._nearest(position), event))
        return list(self._due_events())

    def give_up(self) -> list[Any]:
        """Stops waiting: releases everything held and counts the missing units as lost."""
        ready = self._release_frames()
        while self._events:
            ready += self._due_events()
            if self._events:
                ready.append(self._lost_until(self._events[0][0]))
        return ready

    def drop_until(self, position: int) -> None:
        """Discards everything before `position` and all queued events, after a clear."""
        self._events.clear()
        self._floor = self._nearest(position)
        self.position = max(self._floor, self.position or 0)

    def _begin(self, frame: Frame) -> None:
        """Starts with a new sender: its sequence restarts, its positions continue."""
        is_first = self._source is None and self.position == 0
        self._source = frame.source
        self._next = 0 if is_first else frame.sequence  # from the start everything is expected
        self._given_up.clear()
        self._broken = True

    def _unwrapped(self, frame: Frame) -> Frame:
        if self.position is None:
            self.position = frame.position - frame.repeated
        sequence = _nearest(frame.sequence, self._next, SEQUENCES)
        return replace(frame, sequence=sequence, position=self._nearest(frame.position))

    def _nearest(self, position: int) -> int:
        return position if self.position is None else _nearest(position % POSITIONS, self.position, POSITIONS)

    def _in_order(self) -> Iterator[Piece]:
        """Pieces that need not wait."""
        while self._held:
            first = min(self._held)
            if first > self._next:
                frame = self._held[first]
                assert self.position is not None, "a frame has come"
                is_whole = frame.position - frame.repeated <= self.position
                given_up = min(first, max(self._held) + 1 - self._reorder)
                self._skip(first if is_whole else given_up, lost=not is_whole)
                if self._next < first:
                    return
            yield from self._pieces(self._held.pop(first))

    def _release_frames(self) -> list[Piece]:
        pieces: list[Piece] = []
        for sequence in sorted(self._held):
            self._skip(sequence, lost=True)
            pieces += self._pieces(self._held.pop(sequence))
        return pieces

    def _skip(self, sequence: int, lost: bool) -> None:
        """Stops waiting for the frames before `sequence`."""
        if sequence > self._next:
            self._given_up.extend(range(max(self._next, sequence - _REMEMBERED), sequence))
            self.loss.lost_frames += (sequence - self._next) if lost else 0
            self._next = sequence
            self._broken = True

    def _pieces(self, frame: Frame) -> list[Piece]:
        assert self.position is not None, "a frame has come"
        self._next = frame.sequence + 1
        if frame.position < self._floor:
            return []
        missing = max(0, frame.position - self.position) if self._broken else 0
        recovered = min(missing, frame.repeated)
        self._broken = False
        self.loss.lost_units += missing - recovered
        self.loss.recovered_units += recovered
        self.position = frame.position + len(frame.payload) // self._unit_bytes - frame.repeated
        payload = frame.payload[(frame.repeated - recovered) * self._unit_bytes :]
        return [Piece(frame.position - recovered, payload, missing - recovered, frame.last)]

    def _lost_until(self, position: int) -> Piece:
        lost = 0 if self.position is None else position - self.position
        self.loss.lost_units += lost
        self.position, self._broken = position, True
        return Piece(position, b"", lost)

    def _due_events(self) -> Iterator[Any]:
        while self._events and self.position is not None and self._events[0][0] <= self.position:
            yield self._events.popleft()[1]


def _nearest(value: int, expected: int, modulus: int) -> int:
    """The number congruent to `value` modulo `modulus` that is closest to `expected`."""
    ahead = (value - expected) % modulus
    return expected + ahead - (modulus if ahead >= modulus // 2 else 0)
