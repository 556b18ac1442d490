"""Who may open a session: as many as the device can step in time, by measured step times, and as there are slots."""

from collections import Counter

from streaming.config import StreamConfig
from streaming.engine.budget import Budget
from streaming.engine.engine import STAGES
from streaming.engine.scheduler import Pool
from streaming.errors import CapacityError


def pools_of(kind: str, config: StreamConfig) -> list[Pool]:
    """The pools that a session of `kind` is in."""
    return [Pool(part, config) for part in STAGES[kind]]


class Admission:
    """Counts the sessions that are open or about to be. `max_sessions`: slots in each pool.

    One session is always let in: what a slow device computes late is better than nothing.
    """

    def __init__(self, budget: Budget, max_sessions: int) -> None:
        self._budget = budget
        self._max_sessions = max_sessions
        self._pools: Counter[Pool] = Counter()
        self.sessions = 0

    @property
    def load(self) -> float:
        """The share of the time that the sessions keep the device busy."""
        return self._budget.load(self._pools)

    def capacity(self, kind: str, config: StreamConfig) -> int:
        """How many sessions of that kind and configuration the server holds, with no others beside them."""
        return max(1, self._budget.capacity(pools_of(kind, config), self._max_sessions))

    def admit(self, kind: str, config: StreamConfig) -> None:
        """Reserves a place, to be released once. Raises CapacityError, and then nothing is reserved."""
        if self.sessions >= self._max_sessions:
            raise CapacityError(f"all {self._max_sessions} sessions are in use: try again later or on another server")
        after = self._pools + Counter(pools_of(kind, config))
        if self.sessions and not self._budget.fits(after):
            raise CapacityError(
                f"the device is full: with one {kind} session more its steps would take {self._budget.load(after):.0%}"
                f" of the time, the limit is {self._budget.max_load:.0%}: try again later or on another server"
            )
        self._pools = after
        self.sessions += 1

    def release(self, kind: str, config: StreamConfig) -> None:
        """Gives a place back."""
        self._pools -= Counter(pools_of(kind, config))
        self.sessions -= 1
