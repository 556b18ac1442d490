"""Rate limit of one connection's messages other than payload: a token bucket, so that a flood cannot starve others."""

from collections.abc import Callable

BURST_S = 0.2
"""A quiet connection may send a burst: the messages of this much time."""
PAUSE_S = 0.02
"""Once the burst is spent, parse at most every 20 ms, in one batch: waking up has a cost too."""


class MessagePace:
    """Allows `per_s` messages a second, by a monotonic clock in seconds."""

    def __init__(self, per_s: float, clock: Callable[[], float]) -> None:
        self._per_s, self._clock = per_s, clock
        self._burst = max(1.0, per_s * BURST_S)
        self._credit = self._burst
        self._credited_s = clock()

    def spend(self) -> None:
        """Counts one message."""
        self._credit -= 1

    def wait_s(self) -> float:
        """Seconds until the next message may be parsed; 0 means now."""
        if self._credit < 1:
            now_s = self._clock()
            self._credit = min(self._burst, self._credit + (now_s - self._credited_s) * self._per_s)
            self._credited_s = now_s
        return 0.0 if self._credit >= 1 else max(PAUSE_S, (1 - self._credit) / self._per_s)
