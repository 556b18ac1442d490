"""A live talk by the module, on a page of another origin: it is live again 2 s after any interruption."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from benchmarks.browser.chromium import CHROMIUM, Tab, browser
from benchmarks.common.faulty_proxy import proxy
from tests.server.hosting import hosted
from tests.server.web.elsewhere import hosted_elsewhere, run
from tests.server.web.test_page import page_of, port_of
from tests.streaming.engine.fake import FakeRunner

pytestmark = [
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian's chromium)"),
]
RECOVERY_S = 2.0
MAX_ABOVE_MS = 120
"""Live latency beyond the algorithmic one."""
TALK = """(async () => {
    const { Microphone, Speaker, connect, openContext } = await import("%s/neucodec.js");
    const context = openContext();
    const talk = { said: [], skipped: 0, states: [], plays: 0, latencyMs: 0, least: 0 };
    const onPlayback = (playback) => {
        const { playing, position, time } = talk.playback = playback;
        delete playback.heard;
        if (!playing) return;
        const { input, output } = talk.session.session.utterance;
        const sample = input + (position - output) / 1.5;
        talk.latencyMs = (time - talk.clock - sample / 16000) * 1000;
        talk.plays += 1;
    };
    const speaker = await Speaker.open(context, { live: true, onPlayback });
    talk.session = await connect({
        kind: "roundtrip",
        url: "%s",
        live: true,
        onOutput: (audio, position) => speaker.push(audio, position),
        onState: (state, resumed) => talk.states.push([state, resumed]),
        onSkip: (seconds) => { talk.skipped += seconds; },
    });
    const onFrame = ({ samples, time }) => {
        talk.clock = time - talk.session.session.inputPosition / 16000;
        talk.session.sendNow(samples);
    };
    talk.microphone = await Microphone.open(context, { live: true, onFrame, onSkip: (s) => { talk.skipped += s; } });
    talk.stop = () => { talk.microphone.close(); talk.session.close(); speaker.close(); return context.close(); };
    window.talk = talk;
})()"""
"""`talk.latencyMs`: how long ago what leaves for the device now came from the microphone."""
LATER = """new Promise((resolve) => {
    const { plays } = talk;
    setTimeout(() => resolve(talk.plays > plays ? talk.latencyMs - talk.session.ready.latency_ms : null), 200);
})"""
BLOCK = "(() => { const end = performance.now() + %d; while (performance.now() < end); })()"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tab():
    with hosted_elsewhere() as origin:
        async with browser() as tab:
            await tab.open(origin)
            yield tab


@asynccontextmanager
async def talking(tab: Tab, server: str, line: str) -> AsyncIterator[None]:
    """Somebody talks over `line`, and has been heard for a second."""
    tab.console.clear()
    await run(tab, TALK % (page_of(server), line))
    try:
        async with asyncio.timeout(20):
            while await run(tab, "talk.plays") < 50:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        yield
        assert [text for text in tab.console if "WebSocket" not in text and "ERR_" not in text] == []
    finally:
        await run(tab, "talk.stop()")


async def back_in_time(tab: Tab) -> None:
    await asyncio.sleep(RECOVERY_S)
    above_ms = await run(tab, LATER)
    assert above_ms is not None, await run(tab, "[talk.states, talk.session.failure?.message]")
    assert above_ms <= MAX_ABOVE_MS, (above_ms, await run(tab, "[talk.states, talk.skipped, talk.playback]"))


@pytest.mark.alone
@pytest.mark.parametrize(("seconds", "how"), [(1, "cut"), (5, "cut"), (1, "stall"), (5, "stall")])
async def test_a_cut_or_stalled_line(tab, seconds, how):
    with hosted(FakeRunner(), resume_s=30) as host:
        async with proxy("127.0.0.1", port_of(host.url)) as line, talking(tab, host.url, line.url):
            await back_in_time(tab)
            if how == "cut":
                line.down()
                line.cut()
            else:
                line.stall()
            await asyncio.sleep(seconds)
            await line.up()
            line.resume()
            await back_in_time(tab)
            skipped = await run(tab, "talk.skipped")
            assert seconds - 0.8 < skipped < seconds + 1.2


@pytest.mark.alone
async def test_a_server_that_restarts(tab):
    with hosted(FakeRunner(), drain_s=0) as first:
        port = port_of(first.url)
        leaving = talking(tab, first.url, first.url)
        await leaving.__aenter__()
    try:
        await asyncio.sleep(0.5)
        with hosted(FakeRunner(), port=port):
            await back_in_time(tab)
            assert (await run(tab, "talk.states.at(-1)"))[1]["how"] == "new"
    finally:
        await leaving.__aexit__(None, None, None)


@pytest.mark.alone
async def test_a_page_that_is_busy_for_a_while(tab):
    with hosted(FakeRunner()) as host:
        async with talking(tab, host.url, host.url):
            await run(tab, BLOCK % 1500)
            await back_in_time(tab)
            assert 0.8 < await run(tab, "talk.skipped") < 1.6
