"""One part of the model in one session, as the engine has it: what waits for it, and when its next window is due."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from neucodec_streaming.config import FRAME_MS, START_FRAMES
from neucodec_streaming.engine.scheduler import URGENT_CHUNKS, Pool, ReadyWindow
from neucodec_streaming.engine.slots import Slot
from neucodec_streaming.snapshot import pack, unpack
from neucodec_streaming.windows import AnyWindower

FLUSH_COST_CHUNKS = 2
"""For so many chunks more does the ending of an utterance count, which takes longer to step: a session that ends one
after another does not go before those that speak."""
MAX_AHEAD_S = 1.0
"""What a session had beyond real time counts against it for so long at most, once it has been cleared or has stood
still: whoever clears a long utterance is soon served again, and whoever clears again and again does not go first."""
MAX_LIVE_LEAD_S = 1.0
"""An utterance whose input came further ahead of real time than that is not live: a file, a fast language model."""
END = np.zeros((0, 0))
"""Stands in an inbox for the end of an utterance."""


@dataclass(eq=False)
class Stage:
    """One part of the model in one session: a slot, its lane, and what waits behind an ending (`inbox`).

    `arrivals` tells when the input up to a position was there: (units fed, time), oldest first. `dirty`: the slot has
    been stepped since it was new. The window that was scheduled last was complete at `ready_s` and is due at `due_s`;
    `not_before_s`: the next is due a chunk after that at the earliest. `is_live`: input comes no faster than it lasts,
    counted from `began_s`, the start of the utterance; what is not live is never late, and so waits for what is.
    """

    session: int
    place: int
    pool: Pool
    slot: Slot
    windower: AnyWindower
    inbox: deque[np.ndarray] = field(default_factory=deque)
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

    def __post_init__(self) -> None:
        self._period_s = self.pool.period_s

    def push(self, data: np.ndarray, now_s: float) -> None:
        """More input, checked before."""
        if not self.fed:
            self.began_s = now_s
        self.windower.append(data)
        self.fed += len(data)
        self.is_live &= self._lasts_s(self.fed) - (now_s - self.began_s) <= MAX_LIVE_LEAD_S
        if self.arrivals and self.arrivals[-1][1] == now_s:
            self.arrivals.pop()
        self.arrivals.append((self.fed, now_s))

    def entry(self, now_s: float) -> ReadyWindow | None:
        """When the next window, an ending included, was complete, and when it is due; None: there is none."""
        is_ending = not self.windower.has_window
        if is_ending and not (self.ending and self.windower.has_last):
            return None
        needed, arrivals = self.committed * self.windower.hop + self.windower.window_units, self.arrivals
        while len(arrivals) > 1 and arrivals[0][0] < needed:
            arrivals.popleft()
        self.ready_s = arrivals[0][1] if arrivals and arrivals[0][0] >= needed else now_s
        if not self.is_live:
            self.not_before_s = max(self.not_before_s, now_s + URGENT_CHUNKS * self._period_s)
        self.due_s = self.not_before_s = max(self.ready_s, self.not_before_s) + self._period_s
        if is_ending:
            self.not_before_s += FLUSH_COST_CHUNKS * self._period_s
        is_steady = not is_ending and self.committed >= START_FRAMES
        return ReadyWindow(self.ready_s, self.due_s, is_steady, self.is_live)

    def rebase(self, now_s: float) -> None:
        """What has waited so far waited for its owner: it counts as if it had just arrived."""
        self.not_before_s = min(self.not_before_s, now_s + MAX_AHEAD_S)
        if self.arrivals:
            self.arrivals = deque([(self.fed, now_s)])

    def snapshot(self, state: bytes) -> bytes:
        """The stage with the state of its slot as bytes."""
        numbers = [self.fed, self.committed, self.ending, *(-1 if data is END else len(data) for data in self.inbox)]
        waiting = [data.astype(self.windower.dtype) for data in self.inbox if data is not END]
        parts = [np.frombuffer(part, np.uint8) for part in (state, self.windower.snapshot())]
        return pack({"stage": self.pool.kind}, [*parts, np.array(numbers, np.int64), *waiting])

    def restore(self, snapshot: bytes, now_s: float) -> bytes:
        """As when the snapshot was taken -> the state for its slot. Raises SnapshotError."""
        state, windower, numbers, *waiting = unpack({"stage": self.pool.kind}, snapshot)
        self.windower.restore(windower)
        self.fed, self.committed, ending, *lengths = np.frombuffer(numbers, np.int64).tolist()
        self.ending = bool(ending)
        self.began_s = now_s - self._lasts_s(self.fed)
        parts = iter(waiting)
        self.inbox = deque(END if n < 0 else np.frombuffer(next(parts), self.windower.dtype) for n in lengths)
        self.arrivals = deque([(self.fed, now_s)])
        return state

    def restart(self) -> None:
        """The stream starts anew; the slot must be reset too."""
        self.windower.reset()
        self.arrivals.clear()
        self.ending = self.dirty = False
        self.is_live = True
        self.fed = self.committed = 0

    def _lasts_s(self, units: int) -> float:
        return units / self.windower.hop * FRAME_MS / 1000
