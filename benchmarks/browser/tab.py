"""A page in a headless browser, independent of which browser it is."""

import asyncio
import itertools
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection

DEADLINE_S = 30.0


class Tab(ABC):
    """One page. `run` and `evaluate` run JavaScript in it; `console` holds its errors."""

    def __init__(self, socket: ClientConnection, group: int) -> None:
        self._socket, self._group = socket, group
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.console: list[str] = []

    async def listen(self) -> None:
        async for text in self._socket:
            message = json.loads(text)
            if (waiting := self._answers.get(message.get("id"))) is not None and not waiting.done():
                waiting.set_result(message)
            self._told(message)

    async def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Raises AssertionError if the browser reports an error."""
        number = next(self._numbers)
        waiting = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps({"id": number, **command}))
        try:
            answer = await asyncio.wait_for(waiting, DEADLINE_S)
        finally:
            del self._answers[number]
        assert "error" not in answer, f"{command['method']}: {answer['error']} {answer.get('message', '')}"
        return answer["result"]

    @abstractmethod
    def _told(self, message: dict[str, Any]) -> None:
        """Handles a message of the browser."""

    @abstractmethod
    async def run(self, script: str) -> Any:
        """Returns the value of an expression, as by a user's click; promises are awaited."""

    @abstractmethod
    async def open(self, url: str) -> None:
        """Loads a page and waits until its modules have run."""

    @abstractmethod
    async def press(self, key: str) -> None:
        """Presses and releases one key."""

    @abstractmethod
    async def look(self, *, width: int, height: int, dark: bool, scale: float = 1) -> None:
        """Sets the window size and the user's preference for light or dark."""

    @abstractmethod
    async def capture(self, path: Path) -> None:
        """Writes a PNG of the window's contents."""

    @abstractmethod
    async def save_to(self, folder: Path) -> None:
        """Saves downloads to a folder."""

    @abstractmethod
    async def choose(self, name: str, path: Path) -> None:
        """Chooses a file in the input with this id, as a user would."""

    @abstractmethod
    def beforehand(self, script: str) -> AbstractAsyncContextManager[None]:
        """Runs a script before those of every page that is loaded in this context."""

    @abstractmethod
    async def collect_garbage(self) -> None:
        """Collects the garbage of the page, and of its audio thread if the browser can."""

    @abstractmethod
    async def alive(self) -> dict[str, float]:
        """Returns what the browser reports of the page's live objects, for example `heap_mb` and `nodes`."""

    @abstractmethod
    def _shows_pages(self, command_line: bytes) -> bool:
        """Whether a process of the browser runs pages."""

    async def evaluate(self, script: str) -> Any:
        """Returns the value of an expression in this project's page, where `demo` is its state."""
        return await self.run(
            f"(async () => {{ const {{ demo }} = await import('/page/page.js'); return ({script}); }})()"
        )

    async def until(self, script: str, deadline_s: float = DEADLINE_S) -> Any:
        """Waits until an expression is truthy; returns its value."""
        wait = f"""new Promise((resolve) => {{
            const look = () => {{ const seen = {script}; seen ? resolve(seen) : setTimeout(look, 10); }}; look(); }})"""
        async with asyncio.timeout(deadline_s):
            return await self.evaluate(wait)

    async def click(self, name: str) -> None:
        """Clicks the element with this id, as a user would."""
        await self.evaluate(f"document.getElementById('{name}').click()")

    async def screenshot(self, path: Path, *, width: int, height: int, dark: bool, scale: float = 1) -> None:
        await self.look(width=width, height=height, dark=dark, scale=scale)
        await self.capture(path)

    def resident_mb(self) -> float:
        """Returns the memory of the browser's processes that run pages; Linux only."""
        kib = 0
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # the process may have exited
                if os.getpgid(int(process.name)) == self._group and self._shows_pages(
                    (process / "cmdline").read_bytes()
                ):
                    kib += int((process / "status").read_text().split("VmRSS:")[1].split()[0])
        return kib / 1024


@contextmanager
def ahead_of_others() -> Iterator[None]:
    """Runs processes started meanwhile at real-time priority, if this user may."""
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(os.sched_get_priority_min(os.SCHED_RR)))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


async def words_after(stream: asyncio.StreamReader, words: str) -> str:
    """Returns the rest of the first line that contains `words`."""
    async with asyncio.timeout(DEADLINE_S):
        while words not in (line := (await stream.readline()).decode(errors="replace")):
            assert line, f"the browser exited before it printed {words!r}"
    return line.split(words)[1].strip()


async def drain(stream: asyncio.StreamReader) -> None:
    while await stream.readline():
        pass
