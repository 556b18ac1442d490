"""`neucodec-server` as a child process of demos, benchmarks and tests.

    with ServerProcess("--model", "nano") as server: ...          # or async with, which does not block the event loop

By default it listens on a free loopback port and logs only warnings.
"""

import asyncio
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import IO, Self

START_S = 300.0
"""Timeout for loading a model and warming up, on a busy machine."""
STOP_S = 30.0
DEFAULTS = ("--host", "127.0.0.1", "--port", "0", "--log-level", "warning")


class ServerProcess:
    """A server that can be started and stopped repeatedly; a context manager, blocking or async.

    `arguments` are those of the command. `prefix` is a command that runs it, such as `ip netns exec`. `log` is a file
    for its stderr. Starting raises SystemExit if the process ends, or is not ready within START_S.
    """

    def __init__(self, *arguments: object, prefix: Sequence[str] = (), log: IO[bytes] | None = None) -> None:
        self._command = [*prefix, sys.executable, "-m", "neucodec_streaming.server", *DEFAULTS, *map(str, arguments)]
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self.url = ""
        """WebSocket URL, once it is ready."""

    @property
    def pid(self) -> int:
        """Process id of the last start."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """False before start(), after stop(), and when it has exited."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Blocks until the server is ready."""
        self._spawn()
        self._check(self._read_url())
        return self

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ends it with this signal, or with SIGKILL after STOP_S; returns its exit status."""
        assert self._process is not None, "not started"
        self._process.send_signal(how)  # no effect if it has ended
        try:
            status = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        return status

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop(signal.SIGKILL)
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        self._spawn()
        reading = asyncio.get_running_loop().run_in_executor(None, self._read_url)
        try:
            self._check(await asyncio.shield(reading))
        except BaseException:
            self._kill()
            await reading  # it ends with the process
            self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.stop)

    def _spawn(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=self._log, text=True)

    def _read_url(self) -> str | None:
        """Reads the URL from its ready line; returns None if it ends first, or is killed after START_S."""
        assert self._process is not None and self._process.stdout is not None
        overdue = threading.Timer(START_S, self._kill)
        overdue.start()
        try:
            lines = (re.search(r"ready at (\S+)", line) for line in self._process.stdout)
            return next((found[1] for found in lines if found), None)
        finally:
            overdue.cancel()

    def _check(self, url: str | None) -> None:
        if url is None:
            assert self._process is not None
            raise SystemExit(f"the server ended with status {self._process.wait()} before it was ready: see its log")
        self.url = url

    def _kill(self) -> None:
        assert self._process is not None
        self._process.kill()


@asynccontextmanager
async def demo_server(url: str | None, model: str) -> AsyncIterator[str]:
    """Yields `url`, or the URL of a new server for one session at a time."""
    if url is not None:
        yield url
        return
    async with ServerProcess("--model", model, "--profiles", "default", "--batch-sizes", "1") as server:
        yield server.url
