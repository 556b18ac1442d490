"""Who may open a session, and which worker steps it: as many as can be stepped in time, by measured step times."""

from collections import Counter

from neucodec_streaming.config import StreamConfig
from neucodec_streaming.engine.budget import Budget
from neucodec_streaming.engine.engine import pools_of
from neucodec_streaming.engine.scheduler import Pool
from neucodec_streaming.errors import CapacityError
from neucodec_streaming.server.model import slots_each


class Admission:
    """Counts the sessions of every worker, open or about to be. `max_sessions`: slots of all workers together.

    A worker is always given one session: what a slow device computes late is better than nothing.
    """

    def __init__(self, budget: Budget, max_sessions: int, workers: int = 1) -> None:
        self._budget = budget
        self._max_sessions = max_sessions
        self._slots = slots_each(max_sessions, workers)
        self._pools: list[Counter[Pool]] = [Counter() for _ in range(workers)]
        self._sessions = [0] * workers

    def use_budget(self, budget: Budget) -> None:
        """Step times that were measured anew."""
        self._budget = budget

    @property
    def sessions(self) -> int:
        """Places that are taken."""
        return sum(self._sessions)

    @property
    def load(self) -> float:
        """The share of the time that the sessions keep the workers busy."""
        return sum(map(self._budget.load, self._pools)) / len(self._pools)

    def capacity(self, kind: str, config: StreamConfig) -> int:
        """How many sessions of that kind and configuration the server holds, with no others beside them."""
        each = max(1, self._budget.capacity(list(pools_of(kind, config).values()), self._slots))
        return min(each * len(self._pools), self._max_sessions)

    def admit(self, kind: str, config: StreamConfig) -> int:
        """Reserves a place, to be released once -> the worker that it is at, the one with the least load.

        Raises CapacityError, and then nothing is reserved.
        """
        after = [pools + Counter(pools_of(kind, config).values()) for pools in self._pools]
        free = [worker for worker, pools in enumerate(after) if max(pools.values()) <= self._slots]
        if self.sessions >= self._max_sessions or not free:
            raise CapacityError(f"all {self._max_sessions} sessions are in use: try again later or on another server")
        load, taken, worker = min((self._budget.load(after[one]), self._sessions[one], one) for one in free)
        if taken and not self._budget.fits(after[worker]):
            raise CapacityError(
                f"the device is full: with one {kind} session more its steps would take {load:.0%} of the time, the"
                f" limit is {self._budget.max_load:.0%}: try again later or on another server"
            )
        self._pools[worker] = after[worker]
        self._sessions[worker] += 1
        return worker

    def release(self, worker: int, kind: str, config: StreamConfig) -> None:
        """Gives a place back."""
        self._pools[worker] -= Counter(pools_of(kind, config).values())
        self._sessions[worker] -= 1
