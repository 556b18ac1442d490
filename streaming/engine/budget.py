"""How many sessions a device holds in time, from the measured time of its steps. Pure numbers: no torch, no clock.

The load of a set of sessions is the share of the time in which the device is busy when each pool is stepped once a
chunk, in the batches that take the least time. Sessions whose chunks complete at random moments make more and smaller
batches than that while there is time for it; the busier the device, the more of them gather behind a step that runs, so
that below a load of 1 no backlog grows. What is no step (sockets, clients on this machine) is not in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from neucodec_streaming.engine.scheduler import Pool

DEFAULT_MAX_LOAD = 0.7


@dataclass(frozen=True)
class Budget:
    """`step_s`: pool -> batch size -> seconds of a step; a pool that is not in it costs nothing. `max_load`: of 1."""

    step_s: Mapping[Pool, Mapping[int, float]] = field(default_factory=dict)
    max_load: float = DEFAULT_MAX_LOAD
    _rounds_s: dict[Pool, list[float]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def load(self, sessions: Mapping[Pool, int]) -> float:
        """The share of the time that so many sessions of each pool keep the device busy."""
        return sum(self._round_s(pool, count) / pool.period_s for pool, count in sessions.items())

    def fits(self, sessions: Mapping[Pool, int]) -> bool:
        """Whether so many sessions of each pool can be stepped in time."""
        return self.load(sessions) <= self.max_load

    def capacity(self, pools: Sequence[Pool], limit: int) -> int:
        """The most sessions, up to `limit`, of which each is in all of `pools`, with no others beside them."""
        count = 0
        while count < limit and self.fits(dict.fromkeys(pools, count + 1)):
            count += 1
        return count

    def _round_s(self, pool: Pool, count: int) -> float:
        """One step of each of `count` sessions."""
        times = self.step_s.get(pool)
        if not times:
            return 0.0
        rounds_s = self._rounds_s.setdefault(pool, [0.0])  # of 0, 1, ... sessions
        while (number := len(rounds_s)) <= count:
            rounds_s.append(min(step_s + rounds_s[max(0, number - size)] for size, step_s in times.items()))
        return rounds_s[count]
