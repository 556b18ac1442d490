"""A headless Chromium, driven over its DevTools protocol."""

import asyncio
import base64
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from benchmarks.browser.tab import DEADLINE_S, Tab, ahead_of_others, drain, words_after

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
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


class ChromiumTab(Tab):
    """A page in Chromium; `send` gives access to the rest of the protocol."""

    def __init__(self, socket: ClientConnection, session: str, group: int) -> None:
        super().__init__(socket, group)
        self._session = session
        self._loaded = asyncio.Event()
        self.worklets: list[str] = []

    async def send(self, method: str, *, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Sends a command to the page or a session of `worklets`. AssertionError if the browser reports an error."""
        return await self._ask({"sessionId": session or self._session, "method": method, "params": parameters})

    def _told(self, message: dict[str, Any]) -> None:
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

    async def run(self, script: str) -> Any:
        result = await self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def open(self, url: str) -> None:
        self._loaded.clear()
        await self.send("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), DEADLINE_S)

    async def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            await self.send("Input.dispatchKeyEvent", type=kind, key=key)

    async def collect_garbage(self) -> None:
        for session in (None, *self.worklets):
            await self.send("HeapProfiler.collectGarbage", session=session)

    async def alive(self) -> dict[str, float]:
        heap = await self.send("Runtime.getHeapUsage")
        counted = await self.send("Memory.getDOMCounters")
        names = {"nodes": "nodes", "listeners": "jsEventListeners"}
        return {"heap_mb": round(heap["usedSize"] / 1e6, 2), **{name: counted[key] for name, key in names.items()}}

    def _shows_pages(self, command_line: bytes) -> bool:
        return b"--type=renderer" in command_line

    async def capture(self, path: Path) -> None:
        await self.send("Emulation.setScrollbarsHidden", hidden=True)
        shot = await self.send("Page.captureScreenshot", format="png", captureBeyondViewport=False)
        path.write_bytes(base64.b64decode(shot["data"]))  # noqa: ASYNC240

    async def save_to(self, folder: Path) -> None:
        await self.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    async def choose(self, name: str, path: Path) -> None:
        document = await self.send("DOM.getDocument")
        node = await self.send("DOM.querySelector", nodeId=document["root"]["nodeId"], selector=f"#{name}")
        await self.send("DOM.setFileInputFiles", files=[str(path)], nodeId=node["nodeId"])

    @asynccontextmanager
    async def beforehand(self, script: str) -> AsyncIterator[None]:
        added = await self.send("Page.addScriptToEvaluateOnNewDocument", source=script)
        try:
            yield
        finally:
            await self.send("Page.removeScriptToEvaluateOnNewDocument", identifier=added["identifier"])

    async def look(self, *, width: int, height: int, dark: bool, scale: float = 1) -> None:
        mobile = width < 600
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile
        )
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[feature])


@asynccontextmanager
async def browser(
    microphone: Path | None = None,
    *,
    allowed: bool = True,
    names: str | None = None,
    ahead: bool = False,
    throttled: bool = False,
) -> AsyncIterator[ChromiumTab]:
    """Starts a fresh browser with one empty tab.

    `microphone` is a WAV file that plays in a loop, `allowed` whether the user grants access to the microphone, `names`
    are host names that resolve to this machine. `ahead` runs the browser at real-time priority. `throttled` slows
    hidden tabs down, as for users.
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
        url = await words_after(process.stderr, "DevTools listening on ")
        rest = asyncio.create_task(drain(process.stderr), name="chromium's log")
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
        rest.cancel()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        shutil.rmtree(profile, ignore_errors=True)


async def _attach(socket: ClientConnection, group: int) -> ChromiumTab:
    async def ask(number: int, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        await socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(await asyncio.wait_for(socket.recv(), DEADLINE_S))
            if answer.get("id") == number:
                return answer["result"]

    targets = await ask(1_000_001, "Target.getTargets", {})
    page = next(target for target in targets["targetInfos"] if target["type"] == "page")
    attached = await ask(1_000_002, "Target.attachToTarget", {"targetId": page["targetId"], "flatten": True})
    return ChromiumTab(socket, attached["sessionId"], group)
