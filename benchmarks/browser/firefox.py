"""A headless Firefox, driven over WebDriver BiDi. Its microphone is in a room of PulseAudio null sinks."""

import asyncio
import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from benchmarks.browser.tab import Tab, ahead_of_others, drain, words_after
from benchmarks.common.sound_room import RATE, installed, lift, sound_room
from neucodec_streaming.client.files import read_audio

FIREFOX = (shutil.which("firefox-esr") or shutil.which("firefox")) if installed() else None
"""None also without PulseAudio, its microphone."""
PREFERENCES = {
    "app.normandy.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "dom.min_background_timeout_value": 4,
    "media.autoplay.default": 0,
    "media.navigator.permission.disabled": True,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "remote.prefs.recommended": True,
    "toolkit.telemetry.server": "",
}
KEYS = {"Escape": "\ue00c", "ArrowLeft": "\ue012", "ArrowRight": "\ue014"}
THEME = "layout.css.prefers-color-scheme.content-override"
GARBAGE = (
    'Services.obs.notifyObservers(null, "child-gc-request"); Services.obs.notifyObservers(null, "child-cc-request")'
)
ALLOCATED = """new Promise((done) => {
    const { messageManager } = gBrowser.selectedBrowser;
    const manager = 'Cc["@mozilla.org/memory-reporter-manager;1"].getService(Ci.nsIMemoryReporterManager)';
    const told = ({ data }) => {
        messageManager.removeMessageListener("allocated", told);
        done(data);
    };
    messageManager.addMessageListener("allocated", told);
    const script = `sendAsyncMessage("allocated", ${manager}.heapAllocated)`;
    messageManager.loadFrameScript(`data:,${encodeURIComponent(script)}`, false);
})"""
"""Bytes allocated by the page's process; resident memory would include those that the allocator keeps for reuse."""


class FirefoxTab(Tab):
    """A page in Firefox; `send` gives access to the rest of the protocol."""

    def __init__(self, socket: ClientConnection, group: int) -> None:
        super().__init__(socket, group)
        self._context = ""

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Raises AssertionError if the browser reports an error."""
        return await self._ask({"method": method, "params": parameters})

    async def attach(self) -> None:
        await self.send("session.new", capabilities={})
        await self.send("session.subscribe", events=["log.entryAdded"])
        (tree,) = (await self.send("browsingContext.getTree"))["contexts"]
        self._context = tree["context"]

    def _told(self, message: dict[str, Any]) -> None:
        if message.get("method") == "log.entryAdded" and message["params"]["level"] == "error":
            self.console.append(message["params"]["text"])

    async def run(self, script: str) -> Any:
        text = await self._run(f"(async () => JSON.stringify(await ({script})))()", self._context, userActivation=True)
        return None if text is None else json.loads(text)

    async def _run(self, script: str, context: str, **options: Any) -> Any:
        target = {"context": context}
        answer = await self.send("script.evaluate", expression=script, target=target, awaitPromise=True, **options)
        assert answer["type"] == "success", answer["exceptionDetails"]["text"]
        return answer["result"].get("value")

    async def _run_in_browser(self, script: str) -> Any:
        """Returns the value of an expression with the rights of the browser itself; promises are awaited."""
        tree = await self.send("browsingContext.getTree", **{"moz:scope": "chrome"})
        return await self._run(script, tree["contexts"][0]["context"])

    async def open(self, url: str) -> None:
        await self.send("browsingContext.navigate", context=self._context, url=url, wait="complete")

    async def press(self, key: str) -> None:
        actions = [{"type": kind, "value": KEYS.get(key, key)} for kind in ("keyDown", "keyUp")]
        keyboard = {"type": "key", "id": "keyboard", "actions": actions}
        await self.send("input.performActions", context=self._context, actions=[keyboard])

    async def look(self, *, width: int, height: int, dark: bool, scale: float = 1) -> None:
        viewport = {"width": width, "height": height}
        await self.send(
            "browsingContext.setViewport", context=self._context, viewport=viewport, devicePixelRatio=float(scale)
        )
        await self._run_in_browser(f"Services.prefs.setIntPref({THEME!r}, {0 if dark else 1})")
        await self.until(f"matchMedia('(prefers-color-scheme: dark)').matches === {str(dark).lower()}")

    async def capture(self, path: Path) -> None:
        shot = await self.send("browsingContext.captureScreenshot", context=self._context)
        path.write_bytes(base64.b64decode(shot["data"]))  # noqa: ASYNC240

    async def save_to(self, folder: Path) -> None:
        behaviour = {"type": "allowed", "destinationFolder": str(folder)}
        await self.send("browser.setDownloadBehavior", downloadBehavior=behaviour)

    async def choose(self, name: str, path: Path) -> None:
        locator = {"type": "css", "value": f"#{name}"}
        found = await self.send("browsingContext.locateNodes", context=self._context, locator=locator)
        (node,) = found["nodes"]
        element = {"sharedId": node["sharedId"]}
        await self.send("input.setFiles", context=self._context, element=element, files=[str(path)])

    @asynccontextmanager
    async def beforehand(self, script: str) -> AsyncIterator[None]:
        added = await self.send("script.addPreloadScript", functionDeclaration=f"() => {{ {script}; }}")
        try:
            yield
        finally:
            await self.send("script.removePreloadScript", script=added["script"])

    async def collect_garbage(self) -> None:
        """Collects the garbage of the page. Firefox has no command that reaches the audio thread."""
        await self._run_in_browser(GARBAGE)

    async def alive(self) -> dict[str, float]:
        nodes = await self.run("document.querySelectorAll('*').length")
        return {"nodes": nodes, "allocated_mb": round(await self._run_in_browser(ALLOCATED) / 1e6, 1)}

    def _shows_pages(self, command_line: bytes) -> bool:
        return command_line.rstrip(b"\0").endswith((b" tab", b"\0tab"))


@asynccontextmanager
async def browser(
    microphone: Path | None = None, *, allowed: bool = True, names: str | None = None, ahead: bool = False
) -> AsyncIterator[FirefoxTab]:
    """Starts a fresh browser with one empty tab; the options are those of `chromium.browser`. Without `microphone`, the
    microphone is silent.
    """
    assert FIREFOX is not None, "no firefox, or no pulseaudio"
    async with AsyncExitStack() as stack:
        home = Path(tempfile.mkdtemp(prefix="neucodec-browser-"))
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        surroundings = stack.enter_context(sound_room(home))
        if microphone is not None:
            await stack.enter_async_context(_voice(microphone, surroundings))
        preferences = PREFERENCES | {"permissions.default.microphone": 1 if allowed else 2}
        if not allowed:
            preferences["media.navigator.permission.disabled"] = False
        if names is not None:
            preferences["network.dns.localDomains"] = names
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in preferences.items()]
        (home / "user.js").write_text("\n".join(lines))
        arguments = ["--headless", "--no-remote", "--profile", str(home), "--remote-debugging-port", "0"]
        with ahead_of_others() if ahead else nullcontext():
            process = await asyncio.create_subprocess_exec(
                *(FIREFOX, *arguments, "--remote-allow-system-access", "about:blank"),
                env=surroundings | {"MOZ_CRASHREPORTER_DISABLE": "1"},
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        stack.push_async_callback(_end, process)
        assert process.stderr is not None
        url = await words_after(process.stderr, "WebDriver BiDi listening on ")
        log = asyncio.create_task(drain(process.stderr), name="firefox's log")
        stack.callback(log.cancel)
        options = {"max_size": None, "compression": None, "proxy": None, "ping_interval": None}
        socket = await stack.enter_async_context(connect(f"{url}/session", **options))  # type: ignore[arg-type]
        tab = FirefoxTab(socket, process.pid)
        listener = asyncio.create_task(tab.listen(), name="bidi")
        stack.callback(listener.cancel)
        await tab.attach()
        yield tab


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


@asynccontextmanager
async def _voice(recording: Path, surroundings: dict[str, str]) -> AsyncIterator[None]:
    """Plays a recording in a loop to the microphone, from its start whenever the browser opens the microphone."""
    audio = read_audio(recording, RATE).astype("<f4").tobytes()
    speaking = asyncio.create_task(_speak(audio, surroundings), name="voice")
    try:
        yield
    finally:
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)


async def _speak(audio: bytes, surroundings: dict[str, str]) -> None:
    subscription = ("pactl", "subscribe")
    voice = ("pacat", "--playback", "--device=mouth", f"--rate={RATE}", "--channels=1", "--format=float32le")
    events = await asyncio.create_subprocess_exec(*subscription, env=surroundings, stdout=subprocess.PIPE)
    assert events.stdout is not None
    process: asyncio.subprocess.Process | None = None
    feeding: asyncio.Task[None] | None = None

    def stop() -> None:
        nonlocal process, feeding
        if process is not None and feeding is not None:
            feeding.cancel()
            process.kill()
        process = feeding = None

    try:
        while line := await events.stdout.readline():
            if b"source-output" not in line:
                continue
            if b"'new'" in line and process is None:
                command = (*voice, "--latency-msec=50")
                process = await asyncio.create_subprocess_exec(*command, env=surroundings, stdin=subprocess.PIPE)
                lift(process.pid)
                feeding = asyncio.create_task(_repeat(audio, process), name="recording")
            elif b"'remove'" in line:
                stop()
    finally:
        stop()
        events.kill()
        await events.wait()


async def _repeat(audio: bytes, process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    while True:
        process.stdin.write(audio)
        await process.stdin.drain()
