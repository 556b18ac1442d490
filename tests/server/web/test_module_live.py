"""A live talk by the module on a page of another origin is live again 2 s after any interruption."""

import asyncio
import re
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from benchmarks.browser.browsers import BROWSERS
from benchmarks.browser.elsewhere import hosted_elsewhere
from benchmarks.browser.live_talk import INTERRUPTIONS, above_ms, talking
from benchmarks.browser.tab import Tab
from benchmarks.common.faulty_proxy import proxy
from tests.server.hosting import hosted
from tests.server.web.browsers import in_browsers
from tests.server.web.test_module import page_of
from tests.streaming.engine.fake import FakeRunner

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.asyncio(loop_scope="module"),
]
MAX_ABOVE_MS = 120
"""Live latency on top of the algorithmic one."""
QUICK = "cut of 1 s"
"""This one is part of `make test`, the others of `make test-all`."""
LOST = r"WebSocket|ERR_|connection to (the server at )?ws:|Cross-Origin Request Blocked"
"""A browser's own words for a lost connection."""
TRIES = 3
"""A busy machine interrupts the audio by itself."""
SKIPPED_S = {"cut of 1 s": 1, "cut of 5 s": 5, "stall of 1 s": 1, "stall of 5 s": 5, "page busy for 1.5 s": 1.2}


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=in_browsers())
async def tab(request):
    with hosted_elsewhere() as origin:
        async with BROWSERS[request.param].open() as tab:
            await tab.open(origin)
            yield tab


async def interrupted(tab: Tab, name: str) -> tuple[float, float, float]:
    """Latency on top of the algorithmic one before an interruption and 2 s after it, and the seconds skipped."""
    with hosted(FakeRunner(), resume_s=30) as host:
        async with proxy("127.0.0.1", port_of(host.url)) as line, talking(tab, page_of(host.url), line.url):
            before_ms = await above_ms(tab)
            await INTERRUPTIONS[name](tab, line)
            after_ms = await above_ms(tab)
            return before_ms, after_ms, await tab.run("talk.skipped")


async def restarted(tab: Tab) -> tuple[float, float]:
    """Seconds skipped beyond the time without a connection, and latency 2 s after a restart of the server."""
    with hosted(FakeRunner(), drain_s=0) as first:
        port = port_of(first.url)
        talk = talking(tab, page_of(first.url), first.url)
        await talk.__aenter__()
    try:
        await asyncio.sleep(0.5)
        with hosted(FakeRunner(), port=port):
            after_ms = await above_ms(tab)
            assert (await tab.run("talk.states.at(-1)"))[1]["how"] == "new"
            skipped_s, away_s = await tab.run("[talk.skipped, (talk.backAt - talk.lostAt) / 1000]")
            return skipped_s - away_s, after_ms
    finally:
        await talk.__aexit__(None, None, None)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == QUICK else pytest.mark.servers) for name in INTERRUPTIONS]
)
async def test_a_talk_catches_up_after_an_interruption_and_reports_the_skipped_time(tab, name):
    for _ in range(TRIES):
        tab.console.clear()
        before_ms, after_ms, skipped_s = await interrupted(tab, name)
        assert [text for text in tab.console if not re.search(LOST, text)] == []
        if max(before_ms, after_ms) <= MAX_ABOVE_MS and abs(skipped_s - SKIPPED_S[name]) <= 1:
            break
    assert max(before_ms, after_ms) <= MAX_ABOVE_MS
    assert skipped_s == pytest.approx(SKIPPED_S[name], abs=1)


async def test_a_talk_catches_up_after_a_server_restart(tab):
    for _ in range(TRIES):
        more_s, after_ms = await restarted(tab)
        assert more_s == pytest.approx(0, abs=0.5)
        if after_ms <= MAX_ABOVE_MS:
            break
    assert after_ms <= MAX_ABOVE_MS
