"""Admission: decides whether a session may open, and on which worker, by the measured times of steps."""

from collections import Counter

from neucodec_streaming.config import StreamConfig
from neucodec_streaming.engine.budget import Budget
from neucodec_streaming.engine.engine import pools_of
from neucodec_streaming.engine.scheduler import Pool
from neucodec_streaming.errors import CapacityError
from neucodec_streaming.server.model import slots_each


class Admission:
    """Counts the sessions of every worker, open or opening. `max_sessions`: slots of all workers together.

    A worker always accepts one session: late output of a slow device is better than none.
    """

    def __init__(self, budget: Budget, max_sessions: int, workers: int = 1) -> None:
        self.budget = budget
        """The measured step times."""
        self._max_sessions = max_sessions
        self._slots = slots_each(max_sessions, workers)
        self._pools: list[Counter[Pool]] = [Counter() for _ in range(workers)]
        self._sessions = [0] * workers

    @property
    def sessions(self) -> int:
        """Number of reserved places."""
        return sum(self._sessions)

    @property
    def load(self) -> float:
        """Share of time in which the sessions keep the workers busy."""
        return sum(map(self.budget.load, self._pools)) / len(self._pools)

    def capacity(self, kind: str, config: StreamConfig) -> int:
        """Number of sessions of that kind and configuration that fit on the empty server."""
        each = max(1, self.budget.capacity(list(pools_of(kind, config).values()), self._slots))
        return min(each * len(self._pools), self._max_sessions)

    def admit(self, kind: str, config: StreamConfig) -> int:
        """Reserves a place and returns its worker, the least loaded one. Release it once.

        Raises CapacityError, and then reserves nothing.
        """
        after = [pools + Counter(pools_of(kind, config).values()) for pools in self._pools]
        free = [worker for worker, pools in enumerate(after) if max(pools.values()) <= self._slots]
        if self.sessions >= self._max_sessions or not free:
            raise CapacityError(f"all {self._max_sessions} sessions are in use: try again later, or use another server")
        load, taken, worker = min((self.budget.load(after[one]), self._sessions[one], one) for one in free)
        if taken and not self.budget.fits(after[worker]):
            full = "host" if self.budget.is_limited_by_host(after[worker]) else "device"
            raise CapacityError(
                f"the {full} is full: one more {kind} session would raise its load to {load:.0%}, above the limit of"
                f" {self.budget.max_load:.0%}: try again later, or use another server"
            )
        self._pools[worker] = after[worker]
        self._sessions[worker] += 1
        return worker

    def release(self, worker: int, kind: str, config: StreamConfig) -> None:
        self._pools[worker] -= Counter(pools_of(kind, config).values())
        self._sessions[worker] -= 1
