"""Measures how busy other programs keep the processors, which makes a concurrent measurement unreliable."""

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")
BUSY_SHARE = 0.1
"""Share of the processors used by others above which a measurement is unreliable."""


class OtherLoad:
    """Created before a measurement; share() after it. Always 0 on systems other than Linux."""

    def __init__(self) -> None:
        self._all_s, self._own_s, self._begun_s = _busy_s(), _own_s(), time.monotonic()

    def share(self) -> float:
        """The share of the usable processors that programs other than this one and its children have used since."""
        elapsed_s = (time.monotonic() - self._begun_s) * len(_processors())
        others_s = (_busy_s() - self._all_s) - (_own_s() - self._own_s)
        return min(1.0, max(0.0, others_s / elapsed_s)) if elapsed_s > 0 else 0.0


def _processors() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}


def _busy_s() -> float:
    """Seconds of work of these processors: user, nice, system, and other guests (proc(5))."""
    try:
        lines = [line.split() for line in _STAT.read_text().splitlines()]
    except OSError:
        return 0.0
    names = {f"cpu{number}" for number in _processors()}
    ticks = 0
    for _, user, nice, system, _, _, interrupts, soft, stolen, *_ in (line for line in lines if line[0] in names):
        ticks += sum(map(int, (user, nice, system, interrupts, soft, stolen)))
    return ticks / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    """Seconds of work of this process and its children."""
    return sum(os.times()[:4])
