"""An output file that appears under its name only when it is complete.

It is written to a temporary file in the same folder and renamed over the old one. Links are followed, and the mode of a
replaced file is kept. The temporary file is locked while it is written, so another process can recognise and remove one
that a killed process left.
"""

import glob
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Self

from neucodec_streaming.client.errors import FileError
from neucodec_streaming.client.pipes import PipeWriter, is_stream
from neucodec_streaming.errors import reason_of

try:
    import fcntl
except ImportError:  # not on Windows, where files of killed processes stay
    fcntl = None  # type: ignore[assignment]

_MAX_NAME_LENGTH = 100


class OutputFile:
    """A file written at `temporary`; ends with commit() or discard(). `replaces`: a file of that name exists.

    Raises FileError.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._target = os.path.realpath(path)
        folder, name = os.path.split(self._target)
        start = os.path.join(folder, f".{name[:_MAX_NAME_LENGTH]}.")
        self.temporary = f"{start}{os.getpid()}.part"
        try:
            mode = self._mode()
            for left in glob.glob(f"{glob.escape(start)}*.part"):
                _remove_abandoned(left)
            self._lock = os.open(self.temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            _is_locked(self._lock)
            if mode is not None:
                os.chmod(self.temporary, mode)
        except (OSError, ValueError) as error:
            raise self._failed(error) from None

    def commit(self) -> None:
        """Renames the file to its name."""
        os.close(self._lock)
        try:
            os.replace(self.temporary, self._target)
        except OSError as error:
            self._remove()
            raise self._failed(error) from None

    def discard(self) -> None:
        """Removes the file; an existing file of its name stays."""
        os.close(self._lock)
        self._remove()

    def _remove(self) -> None:
        with suppress(OSError):
            os.unlink(self.temporary)

    def _mode(self) -> int | None:
        """Mode of the file to replace; None if there is none."""
        try:
            mode = os.stat(self._target).st_mode
        except FileNotFoundError:
            self.replaces = False
            return None
        self.replaces = True
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(0, "it is a folder")
        if not os.access(self._target, os.W_OK):
            raise PermissionError(0, "the file is write-protected")
        return stat.S_IMODE(mode)

    def _failed(self, error: OSError | ValueError) -> FileError:
        return FileError(f"{self.path} cannot be written: {reason_of(error)}")


def _is_locked(descriptor: int) -> bool:
    """Locks an open file; returns whether no other process holds the lock."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_abandoned(path: str) -> None:
    """Removes a temporary file that no process is writing."""
    if fcntl is None:
        return
    with suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            if _is_locked(descriptor):
                os.unlink(path)
        finally:
            os.close(descriptor)


class Writer:
    """Base of the writers: a context manager over an OutputFile or a PipeWriter.

    The output appears when the context exits without an error, or with `keep` also after an error if anything was
    written: an error at the very start leaves the old file.
    """

    def __init__(self, path: str | Path, keep: bool) -> None:
        self._keep = keep
        self.has_written = False
        is_piped = is_stream(path, 1)
        self.pipe = PipeWriter(path) if is_piped else None
        self.output = None if is_piped else OutputFile(path)

    def _finish(self, is_whole: bool) -> None:
        """Closes the file, after writing its last part if it `is_whole`."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        is_kept = error is None or (self._keep and self.has_written)
        try:
            self._finish(is_kept)
        except BaseException:
            if self.output is not None:
                self.output.discard()
            if error is None:
                raise
            return
        if self.output is not None:
            if is_kept:
                self.output.commit()
            else:
                self.output.discard()
