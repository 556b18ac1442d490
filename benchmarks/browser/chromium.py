"""A headless Chromium, driven over its DevTools protocol: just enough of it to use a page and inspect it."""

import asyncio
import base64
import itertools
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DEADLINE_S = 30.0
UNTHROTTLED = (
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
)
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    *UNTHROTTLED,
    "--disable-features=Translate,OptimizationHints,MediaRouter",
    "--disable-component-update",
    "--disable-background-networking",
    "--no-first-run",
    "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--remote-debugging-port=0",
)


class Tab:
    """One page. `evaluate` runs JavaScript in it; `console` holds its errors."""

    def __init__(self, socket: ClientConnection, session: str, group: int) -> None:
        self._socket, self._session, self._group = socket, session, group
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self.console: list[str] = []
        self.worklets: list[str] = []

    async def send(self, method: str, *, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Sends one command to the page or to a session of `worklets`. Raises AssertionError if the browser reports an
        error.
        """
        number = next(self._numbers)
        waiting = self._answers[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "sessionId": session or self._session, "method": method, "params": parameters}
        await self._socket.send(json.dumps(message))
        try:
            answer = await asyncio.wait_for(waiting, DEADLINE_S)
        finally:
            del self._answers[number]
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    async def listen(self) -> None:
        """Receives messages until the socket closes."""
        async for text in self._socket:
            message = json.loads(text)
            if (waiting := self._answers.get(message.get("id"))) is not None and not waiting.done():
                waiting.set_result(message)
            match message.get("method"):
                case "Page.loadEventFired":
                    self._loaded.set()
                case "Target.attachedToTarget" if message["params"]["targetInfo"]["type"] == "worklet":
                    self.worklets.append(message["params"]["sessionId"])
                case "Target.detachedFromTarget" if message["params"]["sessionId"] in self.worklets:
                    self.worklets.remove(message["params"]["sessionId"])
                case "Runtime.exceptionThrown":
                    details = message["params"]["exceptionDetails"]
                    self.console.append(details.get("exception", {}).get("description", details["text"]))
                case "Log.entryAdded" if message["params"]["entry"]["level"] == "error":
                    self.console.append(message["params"]["entry"]["text"])

    async def evaluate(self, script: str) -> Any:
        """Returns the value of an expression, awaited if it is a promise. `demo` is the page's Demo."""
        wrapped = f"(async () => {{ const {{ demo }} = await import('/page/page.js'); return ({script}); }})()"
        result = await self.send(
            "Runtime.evaluate", expression=wrapped, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def until(self, script: str, deadline_s: float = DEADLINE_S) -> Any:
        """Waits until an expression is truthy; returns its value."""
        wait = f"""new Promise((resolve) => {{
            const look = () => {{ const seen = {script}; seen ? resolve(seen) : setTimeout(look, 10); }}; look(); }})"""
        async with asyncio.timeout(deadline_s):
            return await self.evaluate(wait)

    async def open(self, url: str) -> None:
        """Loads a page and waits until its modules have run."""
        self._loaded.clear()
        await self.send("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), DEADLINE_S)

    async def click(self, name: str) -> None:
        """Clicks the element with this id, as a user would."""
        await self.evaluate(f"document.getElementById('{name}').click()")

    async def press(self, key: str) -> None:
        """Presses and releases one key."""
        for kind in ("keyDown", "keyUp"):
            await self.send("Input.dispatchKeyEvent", type=kind, key=key)

    async def collect_garbage(self) -> None:
        """Collects the garbage of the page and its audio thread."""
        for session in (None, *self.worklets):
            await self.send("HeapProfiler.collectGarbage", session=session)

    def resident_mb(self) -> float:
        """Returns the memory of the browser's renderer processes; Linux only."""
        kib = 0
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # the process may have exited
                if (
                    b"--type=renderer" in (process / "cmdline").read_bytes()
                    and os.getpgid(int(process.name)) == self._group
                ):
                    status = (process / "status").read_text()
                    kib += int(status.split("VmRSS:")[1].split()[0])
        return kib / 1024

    async def screenshot(self, path: Path, *, width: int, height: int, dark: bool, scale: float = 1) -> None:
        """Writes a PNG of the page at this size."""
        await self.look(width=width, height=height, dark=dark, scale=scale)
        await self.send("Emulation.setScrollbarsHidden", hidden=True)
        shot = await self.send("Page.captureScreenshot", format="png", captureBeyondViewport=False)
        path.write_bytes(base64.b64decode(shot["data"]))  # noqa: ASYNC240

    async def look(self, *, width: int, height: int, dark: bool, scale: float = 1) -> None:
        """Sets the window size and the user's preference for light or dark."""
        mobile = width < 600
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile
        )
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[feature])


@contextmanager
def ahead_of_others() -> Iterator[None]:
    """Runs processes started meanwhile at real-time priority, if this user may."""
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(os.sched_get_priority_min(os.SCHED_RR)))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@asynccontextmanager
async def browser(
    microphone: Path | None = None,
    *,
    allowed: bool = True,
    names: str | None = None,
    ahead: bool = False,
    throttled: bool = False,
) -> AsyncIterator[Tab]:
    """Starts a fresh browser with one empty tab.

    `microphone` is a WAV file that plays in a loop as the microphone, `allowed` whether the user grants access to it.
    `names` are host names that resolve to this machine. `ahead` runs the browser at real-time priority. `throttled`
    slows hidden tabs down, as for users.
    """
    assert CHROMIUM is not None, "no chromium"
    profile = tempfile.mkdtemp(prefix="neucodec-browser-")
    flags = [flag for flag in FLAGS if not (throttled and flag in UNTHROTTLED)] + [f"--user-data-dir={profile}"]
    flags += ["--use-fake-ui-for-media-stream"] if allowed else ["--deny-permission-prompts"]
    if names is not None:
        flags.append(f"--host-resolver-rules=MAP {names} 127.0.0.1")
    if microphone is not None:
        flags.append(f"--use-file-for-fake-audio-capture={microphone}")
    with ahead_of_others() if ahead else nullcontext():
        process = await asyncio.create_subprocess_exec(
            CHROMIUM,
            *flags,
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(DEADLINE_S):
            while b"DevTools listening on " not in (line := await process.stderr.readline()):
                assert line, "chromium ended before it listened"
        drain = asyncio.create_task(_drain(process.stderr), name="chromium's words")
        url = line.decode().split("DevTools listening on ")[1].strip()
        async with connect(url, max_size=None, compression=None, proxy=None, ping_interval=None) as socket:
            tab = await _attach(socket, process.pid)
            listener = asyncio.create_task(tab.listen(), name="devtools")
            for domain in ("Page", "Runtime", "Log"):
                await tab.send(f"{domain}.enable")
            await tab.send("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=False, flatten=True)
            try:
                yield tab
            finally:
                listener.cancel()
        drain.cancel()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        shutil.rmtree(profile, ignore_errors=True)


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.readline():
        pass


async def _attach(socket: ClientConnection, group: int) -> Tab:
    async def ask(number: int, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        await socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(await asyncio.wait_for(socket.recv(), DEADLINE_S))
            if answer.get("id") == number:
                return answer["result"]

    targets = await ask(1_000_001, "Target.getTargets", {})
    page = next(target for target in targets["targetInfos"] if target["type"] == "page")
    attached = await ask(1_000_002, "Target.attachToTarget", {"targetId": page["targetId"], "flatten": True})
    return Tab(socket, attached["sessionId"], group)
