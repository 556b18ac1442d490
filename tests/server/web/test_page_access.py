"""Accessibility: axe reports no violation in any state, large text fits, and motion can be reduced."""

import shutil
import subprocess
from pathlib import Path

import pytest
import pytest_asyncio

from benchmarks.browser.chromium import CHROMIUM, browser
from tests.server.hosting import hosted
from tests.server.web.page import DROP, HARM, PLAYING, READY, TALKING, page_of, say
from tests.streaming.engine.fake import FakeRunner

AXE = "axe-core@4.11.0"
NPM = shutil.which("npm")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.servers,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None or NPM is None, reason="chromium or npm is not installed"),
]
VIOLATIONS = """axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => violations.map(
    ({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => html + failureSummary).join("; ")}`))"""


@pytest.fixture(scope="module")
def axe(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("axe")
    command = [str(NPM), "install", "--no-audit", "--no-fund", "--prefix", str(folder), AXE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return Path(folder, "node_modules", "axe-core", "axe.min.js").read_text()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tab(axe):
    with hosted(FakeRunner()) as host:
        async with browser() as tab:
            await tab.open(page_of(host.url))
            await tab.until(READY)
            await tab.send("Runtime.evaluate", expression=axe)
            yield tab
            await tab.evaluate("(demo.stage.halt(), demo.live.halt())")


async def _first(tab) -> None:
    pass


async def _playing(tab) -> None:
    await tab.click("sample-voices")
    await tab.until(PLAYING)


async def _speaking(tab) -> None:
    await tab.click("speak")
    await tab.until("demo.stage.recorder.tokens.length > 10")


async def _broken(tab) -> None:
    await say(tab)
    await tab.until("demo.stage.take.output")
    await tab.evaluate(HARM % 10)


async def _filmed(tab) -> None:
    await say(tab)
    await tab.until("demo.stage.take.output")
    await tab.click("share-video")
    await tab.until("document.getElementById('takeaway-state').textContent")


async def _refused(tab) -> None:
    await tab.evaluate(DROP % (list(b"Dear Sir"), "'letter.txt'"))
    await tab.until("!document.getElementById('file-notice').hidden")


async def _asked(tab) -> None:
    await tab.evaluate("(demo.server.askForKey(), undefined)")


async def _live(tab) -> None:
    await tab.click("live-tab")
    await tab.click("talk")
    await tab.until(TALKING)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("state", [_first, _playing, _speaking, _broken, _filmed, _refused, _live, _asked])
async def test_axe_reports_no_violation(tab, state, dark):
    await tab.look(width=1280, height=900, dark=dark)
    await state(tab)
    try:
        assert await tab.evaluate(VIOLATIONS) == []
    finally:
        await tab.evaluate("(document.getElementById('key-dialog').close(), demo.stage.halt(), demo.live.halt())")
        await tab.click("speak-tab")


async def test_nothing_is_cut_off_at_400_percent_zoom(tab):
    await tab.look(width=320, height=256, dark=False)  # 1280 x 1024 at 400 %
    await _refused(tab)
    await tab.evaluate("new Promise(requestAnimationFrame)")
    box = await tab.evaluate("document.getElementById('file-notice').getBoundingClientRect().toJSON()")
    assert 0 <= box["top"] < box["bottom"] <= 256
    assert await tab.evaluate("document.documentElement.scrollWidth") <= 320


async def test_reduced_motion_stops_all_animation(tab):
    await tab.look(width=1280, height=900, dark=False)
    await tab.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    await _speaking(tab)
    assert await tab.evaluate("document.getAnimations().length") == 0


async def test_every_control_has_edges_and_a_state_in_forced_colours(tab):
    await tab.send("Emulation.setEmulatedMedia", features=[{"name": "forced-colors", "value": "active"}])
    await tab.evaluate("demo.stage.halt()")
    chosen, other = await tab.evaluate("""["neucodec", "original"].map((id) =>
        getComputedStyle(document.querySelector(`#${id} + span`)).backgroundColor)""")
    assert chosen != other
