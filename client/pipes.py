"""Standard input and output, FIFOs, process substitutions and devices, read and written on a thread.

A thread, because a pipe waits for the program at its other end while the connection must stay alive. Paths that name an
open descriptor (`-`, `/dev/stdin`, `/dev/fd/63`) use that descriptor, so nothing is truncated.
"""

import asyncio
import os
import queue
import re
import stat
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

from neucodec_streaming.client.errors import FileError
from neucodec_streaming.errors import ConfigError, reason_of

PIPE = "-"
_STANDARD = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
_READ_BYTES = 4096
_READ_AHEAD = 16
"""Limit of buffered blocks read from a pipe; beyond it the writing program waits."""


def name_of(path: str | Path, default: int) -> str:
    """The pipe's name in messages; `default` is the descriptor for `-`."""
    return ("standard input", "standard output")[default] if str(path) == PIPE else str(path)


def descriptor_of(path: str | Path, default: int) -> int | None:
    """The open descriptor that a path names, `default` for `-`; None for an ordinary path.

    Raises FileError if standard input or output is closed.
    """
    text = str(path)
    match = _DESCRIPTOR.fullmatch(text)
    number = default if text == PIPE else int(match[1]) if match else _STANDARD.get(text)
    if number in (0, 1) and (sys.stdin, sys.stdout)[number] is None:  # its number may belong to a socket by now
        raise FileError(f"standard {('input', 'output')[number]} is closed: give a file name")
    return number


def status_of(path: str | Path, default: int) -> os.stat_result | None:
    """The file status of a path or descriptor, links followed; None if it does not exist. Raises FileError."""
    number = descriptor_of(path, default)
    try:
        return os.stat(path) if number is None else os.fstat(number)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise FileError(f"{name_of(path, default)} cannot be used: {reason_of(error)}") from None


def is_pipe(path: str | Path, default: int) -> bool:
    """Whether a path is neither a file nor a folder: a pipe, terminal, socket or device."""
    status = status_of(path, default)
    return status is not None and not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode)


def is_device(path: str | Path, default: int) -> bool:
    """Whether a path is a character device, whose bytes may have no end."""
    status = status_of(path, default)
    return status is not None and stat.S_ISCHR(status.st_mode)


def is_stream(path: str | Path, default: int) -> bool:
    """Whether a path is a pipe or names an open descriptor, even of a file: its bytes are read or written in order."""
    return descriptor_of(path, default) is not None or is_pipe(path, default)


def is_standard_output(path: str | Path | None) -> bool:
    """Whether an output uses standard output; the command's summary then goes to standard error."""
    return path is not None and descriptor_of(path, 1) == 1


def refuse_same_file(source: str | Path, output: str | Path) -> None:
    """Raises ConfigError if both are one file or FIFO, under any links or names."""
    here, there = status_of(source, 0), status_of(output, 1)
    if here is None or there is None or not os.path.samestat(here, there):
        return
    if stat.S_ISREG(here.st_mode) or stat.S_ISFIFO(here.st_mode):
        raise ConfigError(
            f"{name_of(output, 1)} is the same file as the input, {name_of(source, 0)}: give another output"
        )


def refuse_audio_to_terminal(output: str | Path) -> None:
    """Raises ConfigError if audio would be written to a terminal."""
    number = descriptor_of(output, 1)
    if number is not None and os.isatty(number):
        raise ConfigError(f"{name_of(output, 1)} is a terminal: give a file, or pipe the audio to a player (| aplay)")


async def read_pipe(path: str | Path) -> AsyncIterator[bytes]:
    """The bytes of a pipe or file as they arrive. Raises FileError."""
    loop = asyncio.get_running_loop()
    blocks: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    room = threading.Semaphore(_READ_AHEAD)
    number = descriptor_of(path, 0)

    def hand_over(block: bytes | OSError) -> None:
        room.acquire()
        loop.call_soon_threadsafe(blocks.put_nowait, block)

    def read() -> None:
        with suppress(RuntimeError):  # the loop is closed: no consumer is left
            try:
                descriptor = os.open(path, os.O_RDONLY) if number is None else os.dup(number)
                while block := os.read(descriptor, _READ_BYTES):
                    hand_over(block)
                os.close(descriptor)
                last: bytes | OSError = b""
            except OSError as error:
                last = error
            hand_over(last)

    threading.Thread(target=read, name="neucodec pipe", daemon=True).start()
    while block := await blocks.get():
        room.release()
        if isinstance(block, OSError):
            raise FileError(f"{name_of(path, 0)} cannot be read: {reason_of(block)}")
        yield block


class PipeWriter:
    """Writes to a pipe, terminal or device: write(bytes) queues, a thread writes, drained() waits.

    The caller bounds the queue by drained(). Raises FileError, or BrokenPipeError if the reader has gone.
    """

    def __init__(self, path: str | Path) -> None:
        self._name = name_of(path, 1)
        self._path, self._descriptor = path, descriptor_of(path, 1)
        self._queue: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._queued = self._written = 0
        self._error: OSError | None = None
        self._waiting: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        threading.Thread(target=self._run, name="neucodec output", daemon=True).start()

    def write(self, payload: bytes) -> None:
        """Queues bytes. Raises the error of an earlier write."""
        self._raise_error()
        if payload:
            self._queued += len(payload)
            self._queue.put(payload)

    async def drained(self, enough: Callable[[int], bool] = lambda backlog_bytes: not backlog_bytes) -> None:
        """Waits until nothing is queued, or `enough(queued_bytes)` is true. Raises the error of an earlier write."""
        changed = asyncio.Event()
        self._waiting = asyncio.get_running_loop(), changed
        while self._error is None and not enough(self._queued - self._written):
            await changed.wait()
            changed.clear()
        self._raise_error()

    def close(self) -> None:
        """Ends the thread after the queue."""
        self._queue.put(b"")

    def _raise_error(self) -> None:
        if isinstance(self._error, BrokenPipeError):
            raise self._error
        if self._error is not None:
            raise FileError(f"{self._name} cannot be written: {reason_of(self._error)}")

    def _run(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: no consumer is left
            try:
                number = self._descriptor
                descriptor = os.open(self._path, os.O_WRONLY) if number is None else os.dup(number)
                while queued := self._queue.get():
                    payload = memoryview(queued)
                    while payload:
                        count = os.write(descriptor, payload)
                        payload = payload[count:]
                        self._written += count
                        self._tell()
                os.close(descriptor)
            except OSError as error:
                self._error = error
                self._tell()

    def _tell(self) -> None:
        if self._waiting is not None:
            loop, changed = self._waiting
            loop.call_soon_threadsafe(changed.set)
