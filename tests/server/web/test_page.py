"""The page in a real browser, over a server whose runner is the fake one: what buttons, keys, files and faults do."""

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import pytest_asyncio
import soundfile

from benchmarks.browser.chromium import CHROMIUM, browser
from benchmarks.common.faulty_proxy import proxy
from tests.server.hosting import hosted
from tests.streaming.engine.fake import FakeRunner

pytestmark = [
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian's chromium)"),
]
READY = "document.getElementById('status').dataset.state === 'ready'"
LIVE = "document.getElementById('status').dataset.state === 'live'"
LOST = "document.getElementById('status').dataset.state === 'lost'"
TALKING = "demo.source?.name === 'microphone' && demo.playing"
NOTICE = "!document.getElementById('notice').hidden && document.getElementById('notice').textContent"
STATUS = "document.getElementById('status').textContent"
SILENT_TICKS = """new Promise((resolve) => {
    let [ticks, last] = [0, 0];
    demo.onPlayback = ({ heard }) => {
        ticks += 1;
        if (heard.some((sample) => sample !== 0)) last = ticks;
        if (ticks === 25) resolve(last);
    };
})"""
"""The number of the last of 25 ticks of 20 ms in which something was heard."""
DROP = """(() => {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([Uint8Array.from(%s)], %s));
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
})()"""


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
    """A voice that never pauses."""
    path = tmp_path_factory.mktemp("microphone") / "tone.wav"
    time_s = np.arange(48_000) / 48_000
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 220 * time_s), 48_000)
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium(microphone):
    async with browser(microphone) as tab:
        yield tab


@pytest_asyncio.fixture(loop_scope="module")
async def tab(chromium, server):
    """The page, ready; whatever it complains of fails the test."""
    await chromium.open(page_of(server.url))
    await chromium.until(READY)
    chromium.console.clear()
    yield chromium
    assert chromium.console == []
    await chromium.evaluate("demo.loop?.close()")


@asynccontextmanager
async def another(url: str, **options):
    """A browser of its own on another server."""
    async with browser(**options) as tab:
        await tab.open(page_of(url))
        yield tab


async def test_space_talks_and_space_stops(tab, server):
    await tab.press(" ")
    await tab.until(TALKING)
    assert await tab.evaluate(STATUS) == "live, fake, default"
    assert await tab.evaluate("document.getElementById('talk').getAttribute('aria-pressed')") == "true"
    await tab.until("demo.take.tokens.count >= 50")
    await tab.press(" ")
    await tab.until(f"{READY} && !demo.playing")
    tokens, output, frames = await tab.evaluate(
        "[demo.take.tokens.count, demo.take.output.count, Math.floor(demo.take.input.count / 320)]"
    )
    assert tokens == frames == output // 480


async def test_interruption_is_silence_at_once_and_nothing_old_follows(tab):
    await tab.press("s")
    await tab.until("demo.playing && demo.source?.name === 'sample'")
    last, before = await tab.evaluate(f"""Promise.all([
        {SILENT_TICKS},
        demo.interrupt().then(() => demo.take.output.count),
    ])""")
    assert last <= 3
    assert await tab.evaluate("[demo.source, demo.playing, demo.take.output.count]") == [None, False, before]
    await tab.press("s")
    await tab.until("demo.playing")


async def test_a_microphone_goes_on_after_an_interruption(tab):
    await tab.click("talk")
    await tab.until(TALKING)
    await tab.press("Escape")
    await tab.until("!demo.playing")
    await tab.until(TALKING)


async def test_what_is_chosen_last_is_heard_however_fast_one_clicks(tab, server):
    await tab.evaluate("['talk', 'sample', 'talk', 'sample'].forEach((id) => document.getElementById(id).click())")
    await tab.until("demo.playing")
    assert await tab.evaluate("demo.source.name") == "sample"
    await server.emptied(2)


async def test_places_are_given_back_when_nobody_talks(tab, server):
    await tab.click("sample")
    await tab.until("demo.playing")
    await tab.click("interrupt")
    await tab.until("!demo.playing")
    await tab.evaluate("demo._idleSince -= 60")
    await server.emptied()


async def test_a_take_is_replayed_compared_and_saved(tab, tmp_path):
    await tab.click("sample")
    await tab.until("demo.take.tokens.count >= 40")
    await tab.click("interrupt")
    await tab.until("!demo.playing")
    tokens = await tab.evaluate("Array.from(demo.take.tokens.units)")
    await tab.click("replay")
    await tab.until(f"demo.source === null && !demo.playing && demo.take.output.count === {480 * len(tokens)}")
    await tab.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    await tab.click("original")
    await tab.until("demo.source?.name === 'original'")
    await tab.click("save-tokens")
    await tab.click("save-wav")
    files = [tmp_path / "speech.tok", tmp_path / "speech.wav"]
    async with asyncio.timeout(10):
        # The browser holds a name with an empty file until all has come.
        while not all(path.exists() and path.stat().st_size for path in files):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert np.fromfile(files[0], "<u2").tolist() == tokens
    audio, rate = soundfile.read(files[1])
    assert (rate, audio.shape) == (24_000, (480 * len(tokens),))


async def test_tokens_dropped_in_are_played(tab):
    await tab.evaluate(drop("voice.txt", "".join(f"<|speech_{token}|>" for token in range(60)).encode()))
    await tab.until("demo.take.output.count === 60 * 480 && !demo.playing")
    assert await tab.evaluate("Array.from(demo.take.tokens.units)") == list(range(60))
    assert await tab.evaluate("demo.take.input.count") == 0


async def test_audio_dropped_in_is_heard(tab, tmp_path):
    soundfile.write(tmp_path / "tone.wav", np.full((22_050, 2), 0.1), 44_100)
    await tab.evaluate(drop("tone.wav", (tmp_path / "tone.wav").read_bytes()))
    await tab.until(f"demo.take.tokens.count === 25 && {READY}")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [("noise.wav", b"no audio", "no audio that this browser can read"), ("odd.tok", b"abc", "no whole number")],
)
async def test_a_file_that_cannot_be_read_is_told(tab, name, content, words):
    await tab.evaluate(drop(name, content))
    assert words in await tab.until(NOTICE)


async def test_harm_on_the_way_is_done_and_shown(tab):
    await tab.evaluate("""[["flip", 10], ["lose", 20]].forEach(([id, value]) => {
        const slider = document.getElementById(id);
        slider.value = value;
        slider.dispatchEvent(new Event("input"));
    })""")
    assert await tab.evaluate("[demo.channel.flip, demo.channel.lose]") == [0.1, 0.2]
    await tab.click("sample")
    colour = await tab.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--damage').trim()")
    red = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    await tab.until(f"""(() => {{
        const canvas = document.getElementById("tokens");
        const {{ data }} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        for (let i = 0; i < data.length; i += 4) {{
            if (data[i] === {red[0]} && data[i + 1] === {red[1]} && data[i + 2] === {red[2]}) return true;
        }}
        return false;
    }})()""")


async def test_a_cut_connection_comes_back_and_nothing_is_lost(chromium):
    with hosted(FakeRunner(), resume_s=30) as host:
        async with proxy("127.0.0.1", port_of(host.url)) as line:
            await chromium.open(page_of(line.url))
            await chromium.until(READY)
            await chromium.click("talk")
            await chromium.until(TALKING)
            line.cut()
            await chromium.until(LOST)
            await chromium.until(LIVE)
            assert await chromium.evaluate(STATUS) == "back, nothing lost"
            heard = await chromium.evaluate("demo.take.tokens.count")
            await chromium.until(f"demo.take.tokens.count > {heard + 50}")
            await chromium.click("talk")
            await chromium.until(f"{READY} && !demo.playing")
            counts = (
                "[demo.take.input.count / 320, demo.take.tokens.count, demo.take.output.count / 480].map(Math.floor)"
            )
            frames, tokens, hops = await chromium.evaluate(counts)
            assert frames == tokens == hops
            places = np.array(await chromium.evaluate("Array.from(demo.take.tokens.units)")) % 256
            assert np.array_equal(places, np.arange(tokens) % 256)  # the fake model counts
            await chromium.evaluate("demo.loop.close()")


async def test_the_end_of_the_server_in_mid_sentence_is_survived(chromium):
    with hosted(FakeRunner(), drain_s=0) as first:
        port = port_of(first.url)
        await chromium.open(page_of(first.url))
        await chromium.until(READY)
        await chromium.click("talk")
        await chromium.until(TALKING)
    await chromium.until(LOST)
    assert await chromium.evaluate(STATUS) == "connection lost, coming back"
    with hosted(FakeRunner(), port=port):
        await chromium.until(LIVE)
        assert (await chromium.evaluate(STATUS)).startswith("back")
        heard = await chromium.evaluate("demo.take.tokens.count")
        await chromium.until(f"demo.take.tokens.count > {heard + 50} && demo.playing")
        await chromium.evaluate("demo.loop.close()")


async def test_a_microphone_that_is_refused_is_explained(server):
    async with another(server.url, allowed=False) as tab:
        await tab.until(READY)
        await tab.click("talk")
        assert "microphone was refused" in await tab.until(NOTICE)
        assert await tab.evaluate("document.getElementById('talk').textContent") == "Talk"
        await tab.click("sample")
        await tab.until("demo.playing")
        assert not await tab.evaluate(NOTICE)


async def test_a_full_server_is_explained(chromium):
    with hosted(FakeRunner(), max_sessions=1) as host:
        await chromium.open(page_of(host.url))
        await chromium.until(READY)
        await chromium.click("talk")
        assert "full" in await chromium.until(NOTICE)
        await host.emptied()


async def test_a_server_that_asks_for_a_key_gets_it(chromium):
    with hosted(FakeRunner(), api_keys=("correct-horse-battery-staple",)) as host:
        await chromium.open(page_of(host.url))
        await chromium.until(READY)
        await chromium.click("sample")
        for key in ("wrong", "correct-horse-battery-staple"):
            await chromium.until("document.getElementById('key-dialog').open")
            await chromium.evaluate(f"document.getElementById('key').value = {key!r}")
            await chromium.evaluate("document.getElementById('key-form').requestSubmit()")
        await chromium.until("demo.playing")
        await chromium.evaluate("(sessionStorage.clear(), demo.loop.close())")


async def test_an_insecure_origin_is_explained(server):
    async with another(f"ws://demo.test:{port_of(server.url)}", names="demo.test") as tab:
        assert not await tab.evaluate("isSecureContext")
        assert "https" in await tab.until(NOTICE)
        await tab.click("talk")
        assert "https" in await tab.until(NOTICE)


@pytest.mark.parametrize(("width", "height"), [(320, 640), (390, 844), (820, 1180), (1280, 800)])
async def test_the_page_fits(tab, width, height):
    await tab.look(width=width, height=height, dark=False)
    assert await tab.evaluate("document.documentElement.scrollWidth") <= width
    hidden = await tab.evaluate("""[...document.querySelectorAll("button, label, canvas")]
        .filter((each) => !each.closest("dialog"))
        .filter((each) => { const box = each.getBoundingClientRect(); return box.right > innerWidth || box.width < 8; })
        .map((each) => each.id || each.textContent)""")
    assert hidden == []
    if width < 600:  # controls are at hand without scrolling
        assert await tab.evaluate("document.getElementById('talk').getBoundingClientRect().bottom <= innerHeight")
        assert await tab.evaluate("document.getElementById('talk').getBoundingClientRect().height >= 40")


async def test_dark_and_light_differ_and_can_be_read(tab):
    for dark in (False, True):
        await tab.look(width=1280, height=800, dark=dark)
        paper, ink, muted = await tab.evaluate("""["--paper", "--ink", "--muted"].map((name) => {
            const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
            const part = (at) => parseInt(hex.slice(at, at + 2), 16) / 255;
            const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
            return 0.2126 * linear(part(1)) + 0.7152 * linear(part(3)) + 0.0722 * linear(part(5));
        })""")
        assert (paper < 0.1) == dark
        for text, least in ((ink, 7), (muted, 4.5)):  # WCAG AAA and AA
            bright, low = max(paper, text), min(paper, text)
            assert (bright + 0.05) / (low + 0.05) >= least
