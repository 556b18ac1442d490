"""An output file that appears under its name only when it is whole.

It is written beside its place under a temporary name, and renamed over what is there. Links are followed, and the mode
of a file that is replaced is kept.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from neucodec_streaming.client.errors import FileError
from neucodec_streaming.client.pipes import PipeWriter, is_stream

_MAX_NAME_LENGTH = 100


class OutputFile:
    """A file to be written at `temporary`; then commit() or discard(). Raises FileError."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._target = os.path.realpath(path)
        folder, name = os.path.split(self._target)
        self.temporary = os.path.join(folder, f".{name[:_MAX_NAME_LENGTH]}.{os.getpid()}.part")
        try:
            mode = self._mode()
            with suppress(FileNotFoundError):
                os.unlink(self.temporary)  # of a process that had this number and was killed
            descriptor = os.open(self.temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            if mode is not None:
                os.chmod(self.temporary, mode)
            os.close(descriptor)
        except (OSError, ValueError) as error:
            raise self._failed(error) from None

    def commit(self) -> None:
        """Gives the file its name."""
        try:
            os.replace(self.temporary, self._target)
        except OSError as error:
            self.discard()
            raise self._failed(error) from None

    def discard(self) -> None:
        """Removes it; what had its name before stays."""
        with suppress(OSError):
            os.unlink(self.temporary)

    def _mode(self) -> int | None:
        """That of the file to replace, None without one."""
        try:
            mode = os.stat(self._target).st_mode
        except FileNotFoundError:
            return None
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(0, "it is a folder")
        if not os.access(self._target, os.W_OK):
            raise PermissionError(0, "the file is write-protected")
        return stat.S_IMODE(mode)

    def _failed(self, error: OSError | ValueError) -> FileError:
        reason = error.strerror if isinstance(error, OSError) else None
        return FileError(f"{self.path} cannot be written: {reason or error}")


class Writer:
    """What writers share: a context manager over an OutputFile or a PipeWriter.

    An output file appears when the context is left without an error, or, with `keep`, after one as well if anything was
    written: an error at the very start leaves the file that was there.
    """

    def __init__(self, path: str | Path, keep: bool) -> None:
        self._keep = keep
        self.has_written = False
        is_piped = is_stream(path, 1)
        self.pipe = PipeWriter(path) if is_piped else None
        self.output = None if is_piped else OutputFile(path)

    def _finish(self, is_whole: bool) -> None:
        """Closes the file, after writing what comes last where it `is_whole`."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
