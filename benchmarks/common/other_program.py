"""Load by another program: a process that takes a share of a core in bursts, and ends by itself.

with other_program(0.3, seconds=60): ...
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

BURST_S = 0.1


@contextmanager
def other_program(share: float, seconds: float) -> Iterator[None]:
    """Runs the program for at most `seconds`; not at all if `share` is 0."""
    if not share:
        yield
        return
    process = subprocess.Popen([sys.executable, "-m", __name__, str(share), str(seconds)])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def compute(share: float, seconds: float) -> None:
    end_s = time.monotonic() + seconds
    while (begin_s := time.monotonic()) < end_s:
        while time.monotonic() - begin_s < BURST_S:
            pass
        time.sleep(BURST_S / share - BURST_S)


if __name__ == "__main__":
    compute(float(sys.argv[1]), float(sys.argv[2]))
