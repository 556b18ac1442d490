"""Who is stepped next: one window a session, the earliest deadlines first, in one of a few batch sizes. No torch.

A window is due one chunk after its input was complete, and one chunk after the window before it: so a session that
sends faster than real time has late deadlines and uses what is left over. A pool (sessions that can be stepped
together) gathers for a time far shorter than a chunk, unless all its sessions are there or its largest batch is full.
"""

import heapq
from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

from streaming.config import FRAME_MS, StreamConfig

GATHER_SHARE = 1 / 8
"""The most of a chunk's duration that gathering may take."""
URGENT_CHUNKS = 2
"""A batch has a row for each window that is due within so many chunks: those of live sessions, whose packets may come
up to a chunk early, and not those of a session that sends faster than real time."""


@dataclass(frozen=True)
class Pool:
    """Sessions that can be stepped in one batch: kind "encode" or "decode", one configuration."""

    kind: str
    config: StreamConfig

    @property
    def period_s(self) -> float:
        """The duration of a chunk."""
        return self.config.chunk_frames * FRAME_MS / 1000

    def __hash__(self) -> int:
        return hash(self.kind)  # asked for many times in every step, and there are few configurations


class Entry(NamedTuple):
    """A window that can be computed: complete at `ready_s`, wanted at `deadline_s`."""

    ready_s: float
    deadline_s: float


@dataclass(frozen=True)
class Batch:
    """Members of one pool to be stepped together at a batch size; the other rows are spare."""

    pool: Pool
    members: list
    size: int


class Scheduler:
    """`batch_sizes` ascending; `gather_s` is the longest that a lone window waits for others of its pool."""

    def __init__(self, batch_sizes: tuple[int, ...], gather_s: float) -> None:
        self.batch_sizes = batch_sizes
        self.gather_s = gather_s
        self._entries: dict[Pool, dict[Hashable, Entry]] = {}
        self._population: dict[Pool, int] = {}

    def enrol(self, pool: Pool) -> None:
        """One more session belongs to `pool`, with or without a window now."""
        self._population[pool] = self._population.get(pool, 0) + 1
        self._entries.setdefault(pool, {})

    def leave(self, pool: Pool) -> None:
        """One session less belongs to `pool`."""
        self._population[pool] -= 1

    def add(self, pool: Pool, member: Hashable, entry: Entry) -> None:
        """`member` has a window to compute; it has one entry at a time."""
        entries = self._entries[pool]
        assert member not in entries, "one window a session"
        entries[member] = entry

    def remove(self, pool: Pool, member: Hashable) -> None:
        """`member` has nothing to compute any more; it need not have had."""
        self._entries[pool].pop(member, None)

    def has(self, pool: Pool, member: Hashable) -> bool:
        """Whether `member` waits to be stepped."""
        return member in self._entries[pool]

    def next_batch(self, now_s: float) -> Batch | None:
        """Takes out the most urgent batch of a pool that need not gather any longer."""
        ripe = [pool for pool in self._entries if self._entries[pool] and self._ripe_s(pool) <= now_s]
        if not ripe:
            return None
        pool = min(ripe, key=lambda pool: min(entry.deadline_s for entry in self._entries[pool].values()))
        entries = self._entries[pool]
        first = heapq.nsmallest(self.batch_sizes[-1], entries, key=lambda member: entries[member].deadline_s)
        soon_s = now_s + URGENT_CHUNKS * pool.period_s
        urgent = sum(entries[member].deadline_s <= soon_s for member in first) or len(first)
        size = next(size for size in self.batch_sizes if size >= urgent)
        members = first[:size]
        for member in members:
            del entries[member]
        return Batch(pool, members, size)

    def wake_s(self) -> float | None:
        """When the next batch can be taken, None while there is nothing to compute."""
        return min((self._ripe_s(pool) for pool in self._entries if self._entries[pool]), default=None)

    def earliest_deadline_s(self) -> float | None:
        """When the most urgent window of all is due, None while there is nothing to compute."""
        waiting = (entry.deadline_s for entries in self._entries.values() for entry in entries.values())
        return min(waiting, default=None)

    def _ripe_s(self, pool: Pool) -> float:
        entries = self._entries[pool]
        first = min(entry.ready_s for entry in entries.values())
        if len(entries) >= min(self._population[pool], self.batch_sizes[-1]):
            return first
        return first + min(self.gather_s, pool.period_s * GATHER_SHARE)
