"""Selects the next batch: one window of a session, earliest deadlines first, in one of a few batch sizes. No torch.

A window is due one chunk after its input was complete and one chunk after the previous window, so sessions that send
faster than real time have late deadlines and only use spare capacity. A pool (sessions that can be stepped together)
gathers windows for a time far shorter than a chunk, unless all its sessions are ready or its largest batch is full.

Steps are not preemptible, so a best-effort batch is deferred if it would overrun the next live window, but never for
longer than one chunk (no starvation).
"""

import heapq
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from neucodec_streaming.config import FRAME_MS, StreamConfig

GATHER_SHARE = 1 / 8
"""Limit of the gathering time, as a share of a chunk."""
URGENT_CHUNKS = 2
"""Windows due within this many chunks share a batch: those of live sessions, whose packets may arrive up to a chunk
early, but not those of a session that sends faster than real time.
"""
LATE_S = 0.02
"""How long a late window is still expected."""


@dataclass(frozen=True)
class Pool:
    """Sessions that can be stepped in one batch: kind "encode" or "decode", one configuration."""

    kind: str
    config: StreamConfig

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type["Pool"], tuple[str, StreamConfig]]:
        """Without the hash, which another process recomputes."""
        return type(self), (self.kind, self.config)

    @cached_property
    def _hash(self) -> int:
        """Kept, since pools are looked up many times in every step."""
        return hash((self.kind, self.config.chunk_frames, self.config.lookahead_frames))

    @cached_property
    def period_s(self) -> float:
        """Duration of a chunk."""
        return self.config.chunk_frames * FRAME_MS / 1000


class ReadyWindow(NamedTuple):
    """A window that can be computed: complete at `ready_s`, due at `deadline_s`.

    The first and last windows of a stream are not steady. It `is_live` unless its input came faster than real time.
    """

    ready_s: float
    deadline_s: float
    is_steady: bool = True
    is_live: bool = True


@dataclass(frozen=True)
class StepBatch:
    """Members of one pool to be stepped together in a batch of `size`; the other rows are spare."""

    pool: Pool
    members: list
    size: int


def batch_size(step_s: Mapping[int, float], count: int) -> int:
    """The batch size that steps the most of `count` sessions a second, by the measured step times.

    For example, four of five go first if a step of eight rows takes more time for each.
    """
    return max(step_s, key=lambda size: (min(size, count) / step_s[size], -size))


@dataclass(eq=False)
class _Queue:
    """Ready windows of one pool by member; `population`: number of sessions in the pool."""

    pool: Pool
    entries: dict[Hashable, ReadyWindow] = field(default_factory=dict)
    population: int = 0

    @property
    def deadline_s(self) -> float:
        """Deadline of the most urgent window."""
        return min(entry.deadline_s for entry in self.entries.values())


class Scheduler:
    """The queue of ready windows. `batch_sizes` ascend. `gather_s`: longest wait of a lone window for others of its
    pool.

    `step_s`: pool -> batch size -> approximate step time; unknown sizes count as equal. `max_edges`: first and last
    windows are stepped separately, up to this many at once; None: together with steady windows.
    """

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
        self._held_until_s = float("-inf")  # end of the deferral of best-effort windows
        self._may_preempt_at_s = float("-inf")  # when their deferral ends even if windows are expected

    def enrol(self, pool: Pool) -> None:
        """Adds a session to `pool`, with or without a ready window."""
        self._queues.setdefault(pool, _Queue(pool)).population += 1

    def leave(self, pool: Pool) -> None:
        """Removes a session from `pool`."""
        self._queues[pool].population -= 1

    def add(self, pool: Pool, member: Hashable, entry: ReadyWindow) -> None:
        """Queues the window of `member`, which has at most one."""
        entries = self._queues[pool].entries
        assert member not in entries, "one window a session"
        entries[member] = entry
        self._expected_s.pop(member, None)

    def remove(self, pool: Pool, member: Hashable) -> None:
        """Removes the window of `member`, if it has one."""
        self._queues[pool].entries.pop(member, None)
        self._expected_s.pop(member, None)

    def has(self, pool: Pool, member: Hashable) -> bool:
        """Whether `member` waits to be stepped."""
        return member in self._queues[pool].entries

    def next_batch(self, now_s: float) -> StepBatch | None:
        """Removes and returns the most urgent batch that need not gather longer and is not deferred."""
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
        """The most urgent window and as many others as can be stepped with it, most urgent first."""
        most, peers = self.batch_sizes[-1], list(entries)
        if self._max_edges is not None:
            is_steady = min(entries.values(), key=lambda entry: entry.deadline_s).is_steady
            peers = [member for member in entries if entries[member].is_steady is is_steady]
            most = most if is_steady else self._max_edges
        return heapq.nsmallest(most, peers, key=lambda member: entries[member].deadline_s)

    def _defers(self, pool: Pool, size: int, now_s: float) -> bool:
        """Whether a best-effort batch is deferred because a live window is expected."""
        step_s = self._step_s.get(pool, {}).get(size, 0.0)
        next_s = min((at_s for at_s in self._expected_s.values() if at_s + LATE_S > now_s), default=float("inf"))
        if not step_s or now_s + step_s <= next_s or now_s >= self._may_preempt_at_s:
            self._may_preempt_at_s = now_s + pool.period_s
            return False
        self._held_until_s = min(next_s + LATE_S, self._may_preempt_at_s)
        return True

    def wake_s(self) -> float | None:
        """When the next batch can be taken; None without windows."""
        return min((self._wake_s(queue) for queue in self._queues.values() if queue.entries), default=None)

    def _wake_s(self, queue: _Queue) -> float:
        """When a batch of the pool need not gather longer and is not deferred."""
        urgent_s = queue.deadline_s - URGENT_CHUNKS * queue.pool.period_s
        return max(self._ripe_s(queue), min(self._held_until_s, urgent_s))

    def earliest_deadline_s(self) -> float | None:
        """Deadline of the most urgent window; None without windows."""
        return min((queue.deadline_s for queue in self._queues.values() if queue.entries), default=None)

    def earliest_live_deadline_s(self) -> float | None:
        """Deadline of the most urgent live window; None if there is none."""
        waiting = (entry for queue in self._queues.values() for entry in queue.entries.values() if entry.is_live)
        return min((entry.deadline_s for entry in waiting), default=None)

    def _ripe_s(self, queue: _Queue) -> float:
        """When a batch of the pool need not gather longer."""
        first = min(entry.ready_s for entry in queue.entries.values())
        if len(queue.entries) >= min(queue.population, self.batch_sizes[-1]):
            return first
        return first + min(self.gather_s, queue.pool.period_s * GATHER_SHARE)
