"""Whether files have changed, for what is read again without a restart: key files and certificates.

There is no task behind it: whoever is about to use what the files hold asks, and the disk is asked once a second at
most. A change is noticed by modification time, size or file number (a file that was moved into place).
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

PERIOD_S = 1.0
_Stamp = tuple[int, int, int] | None


class FileWatch:
    """Tells once of every change of the files after it was made. `clock` gives seconds."""

    def __init__(self, paths: Sequence[Path], clock: Callable[[], float]) -> None:
        self._paths = paths
        self._clock = clock
        self._looked_s = clock()
        self._seen = [_stamp(path) for path in paths]

    def changed(self) -> bool:
        """Whether a file is another than at the last look. Read the files after it, not before."""
        now_s = self._clock()
        if now_s - self._looked_s < PERIOD_S:
            return False
        self._looked_s = now_s
        before, self._seen = self._seen, [_stamp(path) for path in self._paths]
        return self._seen != before


def _stamp(path: Path) -> _Stamp:
    """What is another when the file is; None: there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
