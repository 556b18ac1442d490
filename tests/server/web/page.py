"""The page in a real browser: fixtures, and scripts that its tests run in it."""

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import pytest_asyncio
import soundfile

from benchmarks.browser.browsers import BROWSERS, Browser
from tests.server.hosting import hosted
from tests.server.web.browsers import in_browsers
from tests.streaming.engine.fake import FakeRunner

READY = "document.getElementById('status').dataset.state === 'ready' && demo.stage.take"
IDLE = "demo.stage.recorder.phase === 'idle'"
PLAYING = "demo.stage.player.playing"
TALKING = "demo.live.phase === 'talking' && demo.live.playing"
QUIET = "demo.live.phase === 'idle' && !demo.live.playing"
LIVE_STATE = "document.getElementById('live-state').textContent"
COUNTS = "[demo.stage.take.tokens.length, demo.stage.take.input.length / 320, demo.stage.take.output.length / 480]"
TRACKS = """(() => {
    window.tracks = [];
    const { mediaDevices } = navigator;
    const ask = mediaDevices.getUserMedia.bind(mediaDevices);
    mediaDevices.getUserMedia = async (...wanted) => {
        await window.consent;
        const stream = await ask(...wanted);
        window.tracks.push(...stream.getTracks());
        return stream;
    };
})()"""
"""Records every microphone track; the permission prompt is answered when `consent` resolves."""
LIVE_TRACKS = "window.tracks.filter(({ readyState }) => readyState === 'live').length"
DROP = """(() => {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([Uint8Array.from(%s)], %s));
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
})()"""
VIDEO = """(async () => {
    const bytes = Uint8Array.from(%s);
    const sound = await new OfflineAudioContext(1, 1, 24000).decodeAudioData(bytes.slice().buffer);
    const video = document.createElement("video");
    const type = bytes[0] === 0x1a ? "video/webm" : "video/mp4";
    const frames = await new Promise((resolve, reject) => {
        video.onerror = () => reject(video.error);
        video.onloadeddata = () => resolve([video.videoWidth, video.videoHeight]);
        video.src = URL.createObjectURL(new Blob([bytes], { type }));
    });
    return [...frames, sound.duration, sound.getChannelData(0).reduce((a, b) => Math.max(a, Math.abs(b)), 0)];
})()"""
TYPE = "import('/page/video.js').then(({ videoType }) => videoType().split(/[/;]/)[1])"
KEY = """document.getElementById("%s").dispatchEvent(
    new KeyboardEvent("%s", { key: " ", bubbles: true, cancelable: true }))"""
HARM = """(() => {
    const slider = document.getElementById("harm");
    slider.value = %s;
    slider.dispatchEvent(new Event("input"));
})()"""


def notice(place: str) -> str:
    """False if none is shown."""
    return f"!document.getElementById('{place}-notice').hidden && document.getElementById('{place}-notice').textContent"


async def say(tab, frames: int = 60) -> None:
    await tab.click("speak")
    await tab.until(f"demo.stage.recorder.frames.length >= {frames}")
    await tab.click("speak")
    await tab.until(f"demo.stage.take?.title === 'You' && {IDLE}")


async def saved(*files: Path) -> None:
    """The browser creates an empty file of that name before the download is complete."""
    async with asyncio.timeout(10):
        while not all(path.exists() and path.stat().st_size for path in files):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def page_of(url: str) -> str:
    return url.replace("ws://", "http://")


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def drop(name: str, content: bytes) -> str:
    return DROP % (list(content), json.dumps(name))


@pytest.fixture(scope="module")
def server():
    with hosted(FakeRunner()) as host:
        yield host


@pytest.fixture(scope="module")
def microphone(tmp_path_factory) -> Path:
    """A continuous voice."""
    path = tmp_path_factory.mktemp("microphone") / "tone.wav"
    time_s = np.arange(48_000) / 48_000
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 220 * time_s), 48_000)
    return path


@pytest.fixture(scope="module", params=in_browsers())
def browser(request) -> Browser:
    return BROWSERS[request.param]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bare(browser, microphone):
    async with browser.open(microphone) as tab:
        yield tab


@pytest_asyncio.fixture(loop_scope="module")
async def tab(bare, server):
    """Errors on the page's console fail the test."""
    await bare.open(page_of(server.url))
    await bare.until(READY)
    await bare.evaluate(TRACKS)
    bare.console.clear()
    yield bare
    assert bare.console == []
    await bare.evaluate("(demo.stage.halt(), demo.live.halt())")
    assert await bare.evaluate(LIVE_TRACKS) == 0
    await server.emptied()


@asynccontextmanager
async def another(browser: Browser, url: str, **options):
    async with browser.open(**options) as tab:
        await tab.open(page_of(url))
        yield tab


async def interrupt(tab, way: str, buttons: dict[str, str]) -> None:
    await (tab.press("Escape") if way == "Escape" else tab.click(buttons[way]))
