"""One part of the model in one session of the engine: its queue, and the deadline of its next window."""

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from neucodec_streaming.config import FRAME_MS, START_FRAMES
from neucodec_streaming.engine.scheduler import URGENT_CHUNKS, Pool, ReadyWindow
from neucodec_streaming.engine.slots import Slot
from neucodec_streaming.snapshot import pack, unpack
from neucodec_streaming.windows import Windower

FLUSH_COST_CHUNKS = 2
"""Additional chunks for which an utterance's end counts, since it takes longer to step: repeated short utterances do
not overtake live sessions.
"""
MAX_AHEAD_S = 1.0
"""Limit of the lead over real time that still counts after a clear or a pause: a cleared long utterance is served soon,
repeated clears do not overtake others.
"""
MAX_LIVE_LEAD_S = 1.0
"""Lead over real time beyond which an utterance is not live: a file, or a fast language model."""
END = np.zeros((0, 0))
"""Marks the end of an utterance in an inbox."""


class NextVoice(NamedTuple):
    """Marks a change of voice in an inbox: its tokens, None for no voice."""

    tokens: np.ndarray | None


_END, _NO_VOICE, _VOICE = -1, -2, -3  # in snapshots: a voice of n tokens is -3 - n


@dataclass(eq=False)
class Stage:
    """One part of the model in one session: a slot, its windower, and the queue after an utterance's end (`inbox`).

    Its streams start in `voice`; within an utterance `next_voice` waits for its end. `arrivals`: when the input up to a
    position arrived, as (units fed, time), oldest first. `dirty`: the slot has been stepped since its reset. The latest
    scheduled window was complete at `ready_s` and is due at `due_s`; the next is due a chunk later at the earliest
    (`not_before_s`). `is_live`: input comes no faster than real time, counted from the utterance's start `began_s`;
    other windows are never late, so they wait for live ones. `in_flight`: the step that computes its window.
    """

    session: int
    place: int
    pool: Pool
    slot: Slot
    windower: Windower
    inbox: deque[np.ndarray | NextVoice] = field(default_factory=deque)
    voice: np.ndarray | None = None
    next_voice: NextVoice | None = None
    arrivals: deque[tuple[int, float]] = field(default_factory=deque)
    ending: bool = False
    dirty: bool = False
    fed: int = 0
    committed: int = 0
    ready_s: float = 0.0
    due_s: float = 0.0
    not_before_s: float = 0.0
    is_live: bool = True
    began_s: float = 0.0
    in_flight: object | None = None

    def __post_init__(self) -> None:
        self._unit_s = FRAME_MS / 1000 / self.windower.hop

    def push(self, data: np.ndarray, now_s: float) -> None:
        """Queues more checked input."""
        if self.windower.is_fresh:
            self.began_s = now_s - self.fed * self._unit_s  # a primer counts as received before
        self.windower.append(data)
        self.fed += len(data)
        self.is_live &= self.fed * self._unit_s - (now_s - self.began_s) <= MAX_LIVE_LEAD_S
        if self.arrivals and self.arrivals[-1][1] == now_s:
            self.arrivals.pop()
        self.arrivals.append((self.fed, now_s))

    def entry(self, now_s: float) -> ReadyWindow | None:
        """When the next window (also an utterance's last) was complete, and when it is due; None without a window."""
        is_ending = not self.windower.has_window
        if is_ending and not (self.ending and self.windower.has_last):
            return None
        needed, arrivals = self.committed * self.windower.hop + self.windower.window_units, self.arrivals
        while len(arrivals) > 1 and arrivals[0][0] < needed:
            arrivals.popleft()
        self.ready_s = arrivals[0][1] if arrivals and arrivals[0][0] >= needed else now_s
        if not self.is_live:
            self.not_before_s = max(self.not_before_s, now_s + URGENT_CHUNKS * self.pool.period_s)
        self.due_s = self.not_before_s = max(self.ready_s, self.not_before_s) + self.pool.period_s
        if is_ending:
            self.not_before_s += FLUSH_COST_CHUNKS * self.pool.period_s
        is_steady = not is_ending and self.committed >= START_FRAMES
        return ReadyWindow(self.ready_s, self.due_s, is_steady, self.is_live)

    def rebase(self, now_s: float) -> None:
        """Resets arrival times after back-pressure: the client, not the device, caused the wait."""
        self.not_before_s = min(self.not_before_s, now_s + MAX_AHEAD_S)
        if self.arrivals:
            self.arrivals = deque([(self.fed, now_s)])

    def snapshot(self, state: bytes) -> bytes:
        """The stage and the state of its slot as bytes."""
        items = [NextVoice(self.voice), END if self.next_voice is None else self.next_voice, *self.inbox]
        codes, waiting = zip(*map(self._packed, items), strict=True)
        numbers = [self.fed, self.committed, self.ending, *codes]
        parts = [state, self.windower.snapshot(), np.array(numbers, np.int64), *waiting]
        return pack({"stage": self.pool.kind}, parts)

    def restore(self, snapshot: bytes, now_s: float) -> bytes:
        """Restores the stage from a snapshot and returns the state for its slot. Raises SnapshotError."""
        state, windower, numbers, *waiting = unpack({"stage": self.pool.kind}, snapshot)
        self.windower.restore(windower)
        self.fed, self.committed, ending, *codes = np.frombuffer(numbers, np.int64).tolist()
        self.ending = bool(ending)
        voice, next_voice, *inbox = map(self._unpacked, codes, waiting)
        assert isinstance(voice, NextVoice)
        self.voice, self.next_voice = voice.tokens, next_voice if isinstance(next_voice, NextVoice) else None
        self.inbox = deque(inbox)
        self.began_s = now_s - self.fed * self._unit_s
        self.arrivals = deque([(self.fed, now_s)])
        return state

    def _packed(self, item: np.ndarray | NextVoice) -> tuple[int, np.ndarray]:
        if isinstance(item, NextVoice):
            return (_NO_VOICE, END) if item.tokens is None else (_VOICE - len(item.tokens), item.tokens)
        return (_END, END) if item is END else (len(item), item.astype(self.windower.dtype))

    def _unpacked(self, code: int, raw: bytes) -> np.ndarray | NextVoice:
        if code <= _VOICE:
            return NextVoice(np.frombuffer(raw, np.uint16))
        if code == _NO_VOICE:
            return NextVoice(None)
        return END if code == _END else np.frombuffer(raw, self.windower.dtype)

    def restart(self, start: Windower | None) -> None:
        """Starts the stream over, from `start` if primed; its slot must be reset or primed too."""
        if start is None:
            self.windower.reset()
        else:
            self.windower = start
        self.arrivals.clear()
        self.in_flight = None
        self.ending, self.dirty = False, start is not None
        self.fed, self.committed = self.windower.received_units, self.windower.position
        self.is_live = True
