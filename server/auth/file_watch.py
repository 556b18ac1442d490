"""Detects changes of files that are reloaded without a restart: key files and certificates.

No task runs for it: the user of a file asks before each use, and the disk is checked at most once a second. A change is
detected by modification time, size or inode (a file that was moved into place).
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

PERIOD_S = 1.0


class FileWatch:
    """Reports each change of the files once. `clock` gives seconds."""

    def __init__(self, paths: Sequence[Path], clock: Callable[[], float]) -> None:
        self._paths = paths
        self._clock = clock
        self._looked_s = clock()
        self._seen = [_stamp(path) for path in paths]

    def changed(self) -> bool:
        """Whether a file has changed since the last call. Read the files after it, not before."""
        now_s = self._clock()
        if now_s - self._looked_s < PERIOD_S:
            return False
        self._looked_s = now_s
        before, self._seen = self._seen, [_stamp(path) for path in self._paths]
        return self._seen != before


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """A stamp that changes whenever the file does; None if the file is missing."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
