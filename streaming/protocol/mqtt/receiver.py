"""The frames of one stream as they arrive, back in order: loss, repeats and reordering found and counted. Sans-I/O.

A frame that is missing is waited for until a later one repeats what it held, until `reorder` later ones are there, or
until the owner, who has the clock, says `give_up`. What comes in order is handed on at once. Events that belong to a
position of the stream (a flush, the answer to one) are put among the units: they travel on another topic, which may be
faster or slower.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from neucodec_streaming.protocol.mqtt.packets import POSITIONS, SEQUENCES, Frame, parse_frame

DEFAULT_REORDER = 3
GRACE_S = 0.5
"""How long whoever has the clock should wait for missing frames while nothing goes on."""
_REMEMBERED = 1024
"""Frames that were given up and are still told from repeats when they come."""


@dataclass
class Loss:
    """What has befallen a stream: frames received in time, given up, repeated, come out of order and in time, come too
    late; units lost, and units that were in missing frames and came as repeated ones."""

    frames: int = 0
    lost_frames: int = 0
    duplicate_frames: int = 0
    reordered_frames: int = 0
    late_frames: int = 0
    lost_units: int = 0
    recovered_units: int = 0

    def as_dict(self) -> dict[str, int]:
        """By name, for reports."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


@dataclass(frozen=True)
class Piece:
    """The next units of the stream: `payload` from `position`, after `lost` units that did not arrive; `last` ends an
    utterance. `position` - `lost` is behind the piece before, except where the sender left something out."""

    position: int
    payload: bytes
    lost: int = 0
    last: bool = False


@dataclass(frozen=True)
class _Event:
    position: int
    event: Any


class Receiver:
    """receive(bytes) and put(event, position) -> pieces and events in order.

    `position`: of the next unit; None begins wherever the first frame does, as a listener who joins late must. Of
    positions given to `put` and `drop_until` what is modulo 2^32 counts.
    """

    def __init__(self, unit_bytes: int, position: int | None = 0, reorder: int = DEFAULT_REORDER) -> None:
        self.position = position
        self.loss = Loss()
        self._unit_bytes = unit_bytes
        self._reorder = reorder
        self._source: int | None = None
        self._next = 0  # sequence without wrapping
        self._broken = False  # frames before `_next` were given up
        self._floor = 0  # what lies before was dropped
        self._held: dict[int, Frame] = {}
        self._given_up: deque[int] = deque(maxlen=_REMEMBERED)
        self._events: deque[_Event] = deque()

    @property
    def waits(self) -> bool:
        """Whether something is held until frames come that are missing."""
        return bool(self._held or self._events)

    def receive(self, data: bytes) -> list[Any]:
        """What the frame completes, in order; InputError for bytes that are no frame."""
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
        """`event` comes behind the units before `position`, and behind events that wait already."""
        self._events.append(_Event(self._nearest(position), event))
        return list(self._due_events())

    def give_up(self) -> list[Any]:
        """Waits no longer: everything held, with what is missing lost."""
        ready = self._release_frames()
        while self._events:
            ready += self._due_events()
            if self._events:
                ready.append(self._lost_until(self._events[0].position))
        return ready

    def drop_until(self, position: int) -> None:
        """Forgets everything before `position`, and the events that wait: it was cleared."""
        self._events.clear()
        self._floor = self._nearest(position)
        self.position = max(self._floor, self.position or 0)

    def _begin(self, frame: Frame) -> None:
        """A sender takes the stream up: its sequence is its own, its position goes on."""
        is_first = self._source is None and self.position == 0
        self._source = frame.source
        self._next = 0 if is_first else frame.sequence  # from the beginning all is expected
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
        """Pieces that need not wait for anything."""
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
        """The frames before that one will not be waited for."""
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
        while self._events and self.position is not None and self._events[0].position <= self.position:
            yield self._events.popleft().event


def _nearest(value: int, expected: int, modulus: int) -> int:
    """The number that is `value` modulo `modulus` and closest to `expected`."""
    ahead = (value - expected) % modulus
    return expected + ahead - (modulus if ahead >= modulus // 2 else 0)
