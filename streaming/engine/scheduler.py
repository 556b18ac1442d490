"""Who is stepped next: one window a session, the earliest deadlines first, in one of a few batch sizes. No torch.

A window is due one chunk after its input was complete, and one chunk after the window before it: so a session that
sends faster than real time has late deadlines and uses what is left over. A pool (sessions that can be stepped
together) gathers for a time far shorter than a chunk, unless all its sessions are there or its largest batch is full.

A step cannot be interrupted. So a batch that nobody waits for is not begun when a live session's next window is to be
expected before it is over, unless none was begun for a chunk's duration.
"""

import heapq
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from neucodec_streaming.config import FRAME_MS, StreamConfig

GATHER_SHARE = 1 / 8
"""The most of a chunk's duration that gathering may take."""
URGENT_CHUNKS = 2
"""A batch has a row for each window that is due within so many chunks: those of live sessions, whose packets may come
up to a chunk early, and not those of a session that sends faster than real time."""
LATE_S = 0.02
"""A window that is to be expected is expected for so long beyond its time."""


@dataclass(frozen=True)
class Pool:
    """Sessions that can be stepped in one batch: kind "encode" or "decode", one configuration."""

    kind: str
    config: StreamConfig

    def __hash__(self) -> int:
        """Cheap, since pools are looked up many times in every step."""
        return hash((self.kind, self.config.chunk_frames, self.config.lookahead_frames))

    @cached_property
    def period_s(self) -> float:
        """The duration of a chunk."""
        return self.config.chunk_frames * FRAME_MS / 1000


class ReadyWindow(NamedTuple):
    """A window that can be computed: complete at `ready_s`, wanted at `deadline_s`. The start and the ending of a
    stream are not steady. It `is_live` unless its input came faster than it lasts."""

    ready_s: float
    deadline_s: float
    is_steady: bool = True
    is_live: bool = True


@dataclass(frozen=True)
class StepBatch:
    """Members of one pool to be stepped together at a batch size; the other rows are spare."""

    pool: Pool
    members: list
    size: int


def batch_size(step_s: Mapping[int, float], count: int) -> int:
    """The size that steps the most of `count` sessions in a second, by the seconds of a step of each size: of five,
    four go first if eight rows would take more time for each."""
    return max(step_s, key=lambda size: (min(size, count) / step_s[size], -size))


@dataclass(eq=False)
class _Queue:
    """Windows of one pool that can be computed, by their member; `population`: sessions that belong to the pool."""

    pool: Pool
    entries: dict[Hashable, ReadyWindow] = field(default_factory=dict)
    population: int = 0

    @property
    def deadline_s(self) -> float:
        """Of the most urgent window."""
        return min(entry.deadline_s for entry in self.entries.values())


class Scheduler:
    """`batch_sizes` ascending; `gather_s` is the longest that a lone window waits for others of its pool. `step_s`:
    pool -> batch size -> about how long a step takes; where it is not known, all sizes take as long. `max_edges`:
    starts and endings are stepped by themselves, up to that many at once; None: in one batch with steady windows."""

    def __init__(
        self,
        batch_sizes: tuple[int, ...],
        gather_s: float,
        step_s: Mapping[Pool, Mapping[int, float]] | None = None,
        *,
        max_edges: int | None = None,
    ) -> None:
        self.batch_sizes = batch_sizes
        self.gather_s = gather_s
        self._max_edges = max_edges
        self._step_s = step_s or {}
        self._equally_long = dict.fromkeys(batch_sizes, 1.0)
        self._queues: dict[Pool, _Queue] = {}
        self._expected_s: dict[Hashable, float] = {}  # when the next window of a live session should be complete
        self._held_until_s = float("-inf")  # what nobody waits for
        self._may_preempt_at_s = float("-inf")  # from when on it may be stepped whoever is expected

    def enrol(self, pool: Pool) -> None:
        """One more session belongs to `pool`, with or without a window now."""
        self._queues.setdefault(pool, _Queue(pool)).population += 1

    def leave(self, pool: Pool) -> None:
        """One session less belongs to `pool`."""
        self._queues[pool].population -= 1

    def add(self, pool: Pool, member: Hashable, entry: ReadyWindow) -> None:
        """`member` has a window to compute; it has one entry at a time."""
        entries = self._queues[pool].entries
        assert member not in entries, "one window a session"
        entries[member] = entry
        self._expected_s.pop(member, None)

    def remove(self, pool: Pool, member: Hashable) -> None:
        """`member` has nothing to compute any more; it need not have had."""
        self._queues[pool].entries.pop(member, None)
        self._expected_s.pop(member, None)

    def has(self, pool: Pool, member: Hashable) -> bool:
        """Whether `member` waits to be stepped."""
        return member in self._queues[pool].entries

    def next_batch(self, now_s: float) -> StepBatch | None:
        """Takes out the most urgent batch of a pool that need not gather any longer, if it need not wait for others."""
        ripe = [queue for queue in self._queues.values() if queue.entries and self._ripe_s(queue) <= now_s]
        if not ripe:
            return None
        queue = min(ripe, key=lambda queue: queue.deadline_s)
        pool, entries = queue.pool, queue.entries
        first = self._first(entries)
        soon_s = now_s + URGENT_CHUNKS * pool.period_s
        urgent = sum(entries[member].deadline_s <= soon_s for member in first)
        size = batch_size(self._step_s.get(pool) or self._equally_long, urgent or len(first))
        if not urgent and self._defers(pool, size, now_s):
            return None
        members = first[:size]
        for member in members:
            entry = entries.pop(member)
            if entry.deadline_s <= soon_s:
                self._expected_s[member] = entry.ready_s + pool.period_s
        return StepBatch(pool, members, size)

    def _first(self, entries: Mapping[Hashable, ReadyWindow]) -> list[Hashable]:
        """The most urgent, and as many others as can be stepped with it, the most urgent first."""
        most, peers = self.batch_sizes[-1], list(entries)
        if self._max_edges is not None:
            is_steady = min(entries.values(), key=lambda entry: entry.deadline_s).is_steady
            peers = [member for member in entries if entries[member].is_steady is is_steady]
            most = most if is_steady else self._max_edges
        return heapq.nsmallest(most, peers, key=lambda member: entries[member].deadline_s)

    def _defers(self, pool: Pool, size: int, now_s: float) -> bool:
        """Whether a batch that nobody waits for is not begun now, since a live session's window is to be expected."""
        step_s = self._step_s.get(pool, {}).get(size, 0.0)
        next_s = min((at_s for at_s in self._expected_s.values() if at_s + LATE_S > now_s), default=float("inf"))
        if not step_s or now_s + step_s <= next_s or now_s >= self._may_preempt_at_s:
            self._may_preempt_at_s = now_s + pool.period_s
            return False
        self._held_until_s = min(next_s + LATE_S, self._may_preempt_at_s)
        return True

    def wake_s(self) -> float | None:
        """When the next batch can be taken, None while there is nothing to compute."""
        return min((self._wake_s(queue) for queue in self._queues.values() if queue.entries), default=None)

    def _wake_s(self, queue: _Queue) -> float:
        """When a batch of the pool need not gather any longer, and is not held or urgent."""
        urgent_s = queue.deadline_s - URGENT_CHUNKS * queue.pool.period_s
        return max(self._ripe_s(queue), min(self._held_until_s, urgent_s))

    def earliest_deadline_s(self) -> float | None:
        """When the most urgent window of all is due, None while there is nothing to compute."""
        return min((queue.deadline_s for queue in self._queues.values() if queue.entries), default=None)

    def earliest_live_deadline_s(self) -> float | None:
        """When the most urgent live window is due, None while there is none."""
        waiting = (entry for queue in self._queues.values() for entry in queue.entries.values() if entry.is_live)
        return min((entry.deadline_s for entry in waiting), default=None)

    def _ripe_s(self, queue: _Queue) -> float:
        """When a batch of the pool need not gather any longer."""
        first = min(entry.ready_s for entry in queue.entries.values())
        if len(queue.entries) >= min(queue.population, self.batch_sizes[-1]):
            return first
        return first + min(self.gather_s, queue.pool.period_s * GATHER_SHARE)
