"""A live talk by the module, on a page of another origin: it is live again 2 s after any interruption."""

import asyncio
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from benchmarks.browser.chromium import CHROMIUM, browser
from benchmarks.browser.elsewhere import hosted_elsewhere
from benchmarks.browser.live_talk import INTERRUPTIONS, above_ms, run, talking
from benchmarks.common.faulty_proxy import proxy
from tests.server.hosting import hosted
from tests.server.web.test_module import page_of
from tests.streaming.engine.fake import FakeRunner

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian's chromium)"),
]
MAX_ABOVE_MS = 120
"""Live latency beyond the algorithmic one."""
SKIPPED_S = {"cut of 1 s": 1, "cut of 5 s": 5, "stall of 1 s": 1, "stall of 5 s": 5, "page busy for 1.5 s": 1.2}


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tab():
    with hosted_elsewhere() as origin:
        async with browser() as tab:
            await tab.open(origin)
            yield tab


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.servers if " 5 s" in name else ()) for name in INTERRUPTIONS]
)
async def test_a_talk_is_live_again_and_tells_what_was_skipped(tab, name):
    with hosted(FakeRunner(), resume_s=30) as host:
        async with proxy("127.0.0.1", port_of(host.url)) as line:
            tab.console.clear()
            async with talking(tab, page_of(host.url), line.url):
                assert await above_ms(tab) <= MAX_ABOVE_MS
                await INTERRUPTIONS[name](tab, line)
                later_ms = await above_ms(tab)
                assert later_ms <= MAX_ABOVE_MS, await run(tab, "[talk.states, talk.skipped]")
                assert await run(tab, "talk.skipped") == pytest.approx(SKIPPED_S[name], abs=1)
                assert [text for text in tab.console if "WebSocket" not in text and "ERR_" not in text] == []


async def test_a_talk_is_live_again_after_a_restart_of_the_server(tab):
    with hosted(FakeRunner(), drain_s=0) as first:
        port = port_of(first.url)
        talk = talking(tab, page_of(first.url), first.url)
        await talk.__aenter__()
    try:
        await asyncio.sleep(0.5)
        with hosted(FakeRunner(), port=port):
            assert await above_ms(tab) <= MAX_ABOVE_MS
            (state, resumed), skipped_s, away_s = await run(
                tab, "[talk.states.at(-1), talk.skipped, (talk.backAt - talk.lostAt) / 1000]"
            )
            assert (state, resumed["how"]) == ("resumed", "new")
            assert skipped_s == pytest.approx(away_s, abs=0.4)
    finally:
        await talk.__aexit__(None, None, None)
