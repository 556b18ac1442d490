"""How many sessions a device can step in time, from measured step times. Pure numbers: no torch, no clock.

The load of a set of sessions is the share of time in which the device is busy when each pool is stepped once a chunk,
in the fastest batches. With spare time, chunks that complete at random moments form more and smaller batches; the
busier the device, the more chunks gather during a step, so no backlog grows below a load of 1.

Where the device computes while the host prepares other steps, the host has a load of its own, and the higher one
limits. Elsewhere steps are the host's own work; the rest of it (sockets, local clients) is not included.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from neucodec_streaming.engine.scheduler import Pool

DEFAULT_MAX_LOAD = 0.7


@dataclass(frozen=True)
class Budget:
    """`step_s`: pool -> batch size -> seconds of a step; other pools cost nothing. `max_load`: limit, where 1 is fully
    busy. `host_s`: like `step_s`, the host's time of a step, if it works beside the device.
    """

    step_s: Mapping[Pool, Mapping[int, float]] = field(default_factory=dict)
    max_load: float = DEFAULT_MAX_LOAD
    host_s: Mapping[Pool, Mapping[int, float]] = field(default_factory=dict)
    _rounds_s: dict[tuple[bool, Pool], list[float]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def load(self, sessions: Mapping[Pool, int]) -> float:
        """Share of time in which the given numbers of sessions keep the device busy, or the host if that is more."""
        return max(self._share(sessions, of_host=False), self._share(sessions, of_host=True))

    def fits(self, sessions: Mapping[Pool, int]) -> bool:
        """Whether the given numbers of sessions can be stepped in time."""
        return self.load(sessions) <= self.max_load

    def capacity(self, pools: Sequence[Pool], limit: int) -> int:
        """The largest number of sessions, up to `limit`, that fit alone, each with a slot in all of `pools`."""
        count = 0
        while count < limit and self.fits(dict.fromkeys(pools, count + 1)):
            count += 1
        return count

    def is_limited_by_host(self, sessions: Mapping[Pool, int]) -> bool:
        """Whether the host is busier than the device."""
        return self._share(sessions, of_host=True) > self._share(sessions, of_host=False)

    def _share(self, sessions: Mapping[Pool, int], *, of_host: bool) -> float:
        return sum(self._round_s(pool, count, of_host) / pool.period_s for pool, count in sessions.items())

    def _round_s(self, pool: Pool, count: int, of_host: bool) -> float:
        """Seconds to step each of `count` sessions once."""
        times = (self.host_s if of_host else self.step_s).get(pool)
        if not times:
            return 0.0
        rounds_s = self._rounds_s.setdefault((of_host, pool), [0.0])  # for 0, 1, ... sessions
        while (number := len(rounds_s)) <= count:
            rounds_s.append(min(step_s + rounds_s[max(0, number - size)] for size, step_s in times.items()))
        return rounds_s[count]
