"""`neucodec-server` as a process of its own: how demos, benchmarks and tests start it, wait for it and stop it.

    with ServerProcess("--model", "nano") as server: ...          # or async with: the event loop goes on meanwhile

Without other arguments it listens on a free port of the loopback interface and logs warnings only. What it logs goes to
stderr, unless a file is given.
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
"""For loading a model and warming up, on a busy machine."""
STOP_S = 30.0
DEFAULTS = ("--host", "127.0.0.1", "--port", "0", "--log-level", "warning")


class ServerProcess:
    """A server that may be started and stopped again and again; a context manager, blocking or async.

    `arguments` are those of the command. `prefix`: a command to run it by, such as `ip netns exec`. `log`: a file for
    its stderr. start() raises SystemExit when it ends, or says nothing for START_S, before it is ready.
    """

    def __init__(self, *arguments: object, prefix: Sequence[str] = (), log: IO[bytes] | None = None) -> None:
        self._command = [*prefix, sys.executable, "-m", "neucodec_streaming.server", *DEFAULTS, *map(str, arguments)]
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self.url = ""
        """Of its WebSockets, once it is ready."""

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """False before start(), after stop(), and when it has ended by itself."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Blocks until it is ready."""
        self._spawn()
        self._check(self._read_url())
        return self

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ends it by that signal, by SIGKILL if it takes longer than STOP_S; returns its exit status."""
        assert self._process is not None, "not started"
        self._process.send_signal(how)  # nothing, if it has ended
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
        """From the line that says where it is ready; None if it ends before, or is killed for taking too long."""
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
    """The URL of a server for one session at a time: the one given, or that of a process of our own."""
    if url is not None:
        yield url
        return
    async with ServerProcess("--model", model, "--profiles", "default", "--batch-sizes", "1") as server:
        yield server.url
