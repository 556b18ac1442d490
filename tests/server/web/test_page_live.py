"""The page in a real browser: a live talk, lost connections, and refusals."""

import pytest

from benchmarks.common.faulty_proxy import proxy
from tests.server.hosting import hosted
from tests.server.web.page import (
    COUNTS,
    HARM,
    IDLE,
    LIVE_STATE,
    LIVE_TRACKS,
    PLAYING,
    QUIET,
    READY,
    TALKING,
    TRACKS,
    another,
    bare,
    browser,
    drop,
    microphone,
    notice,
    page_of,
    port_of,
    say,
    server,
    tab,
)
from tests.streaming.engine.fake import FakeRunner

pytestmark = [
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]


async def test_a_live_talk_is_heard_and_becomes_a_take(tab, server):
    await tab.click("live-tab")
    assert await tab.evaluate("document.getElementById('live-total').textContent") == "\u2014"
    await tab.click("talk")
    await tab.until(f"{TALKING} && demo.live.history.tokens.count >= 50")
    assert server.app.registry.count == 2
    total, *parts = await tab.until("""(() => {
        const numbers = (id) => document.getElementById(id).textContent.match(/\\d+/g)?.map(Number);
        const [total, parts] = [numbers("live-total"), numbers("live-latency")];
        return total && parts && [...total, ...parts];
    })()""")
    assert sum(parts[:4]) == pytest.approx(total, abs=2)  # each part is rounded
    await tab.click("talk")
    await server.emptied()
    await tab.until(QUIET)
    assert await tab.evaluate("document.getElementById('live-total').textContent") == "\u2014"
    await tab.click("live-compare")
    tokens, frames, hops = await tab.evaluate(COUNTS)
    assert tokens == frames == hops >= 50


async def test_a_cut_connection_is_restored(bare):
    with hosted(FakeRunner(), resume_s=30) as host:
        async with proxy("127.0.0.1", port_of(host.url)) as line:
            await bare.open(page_of(line.url))
            await bare.until(READY)
            await bare.click("talk")
            await bare.until(TALKING)
            line.cut()
            await bare.until(f"{LIVE_STATE} === 'connection lost, reconnecting'")
            await bare.until(f"{LIVE_STATE}.startsWith('reconnected')")
            heard = await bare.evaluate("demo.live.history.tokens.count")
            await bare.until(f"demo.live.history.tokens.count > {heard + 50}")
            await bare.click("talk")
            await bare.until(QUIET)
            await host.emptied()


async def test_a_microphone_that_is_refused_is_explained(browser, server):
    async with another(browser, server.url, allowed=False) as tab:
        await tab.until(READY)
        await tab.click("speak")
        assert "microphone was refused" in await tab.until(notice("speak"))
        assert await tab.evaluate("document.getElementById('speak-words').textContent") == "Hold to speak"
        await tab.click("sample-voices")
        await tab.until(PLAYING)


async def test_a_full_server_is_explained_at_the_button_and_no_slot_is_held(bare):
    with hosted(FakeRunner(), max_sessions=1) as host:
        await bare.open(page_of(host.url))
        await bare.until(READY)
        await bare.evaluate(TRACKS)
        await bare.look(width=390, height=600, dark=False)
        await bare.click("live-tab")
        await bare.click("talk")
        assert "full" in await bare.until(notice("live"))
        await host.emptied()
        assert await bare.evaluate(LIVE_TRACKS) == 0
        await bare.evaluate("new Promise(requestAnimationFrame)")
        box = await bare.evaluate("document.getElementById('live-notice').getBoundingClientRect().toJSON()")
        assert 0 <= box["top"] < box["bottom"] <= 600


async def test_a_refusal_resets_the_slider_and_is_visible_on_a_scrolled_phone(tab, server):
    await say(tab)
    await tab.until(f"demo.stage.take.output && !{PLAYING}")
    await tab.look(width=320, height=480, dark=False)
    await tab.evaluate("scrollTo(0, document.body.scrollHeight)")
    await tab.evaluate("(demo.server.connect = () => Promise.reject(new Error('No room.')), undefined)")
    await tab.evaluate(HARM % 15)
    assert await tab.until(notice("break")) == "No room."
    assert await tab.evaluate("document.getElementById('harm').value") == "0"
    await tab.evaluate("new Promise(requestAnimationFrame)")
    box = await tab.evaluate("document.getElementById('break-notice').getBoundingClientRect().toJSON()")
    assert 0 <= box["top"] < box["bottom"] <= 480
    await tab.look(width=1280, height=800, dark=False)


async def test_the_page_asks_for_a_required_key_until_it_is_right(bare):
    with hosted(FakeRunner(), api_keys=("correct-horse-battery-staple",)) as host:
        await bare.open(page_of(host.url))
        await bare.until(READY)
        await bare.evaluate(drop("voice.tok", bytes(100)))
        for key, told in (("wrong", False), ("correct-horse-battery-staple", True)):
            await bare.until("document.getElementById('key-dialog').open")
            assert await bare.evaluate("!document.getElementById('key-notice').hidden") == told
            await bare.evaluate(f"(document.getElementById('key').value = {key!r}, undefined)")
            await bare.evaluate("document.getElementById('key-form').requestSubmit()")
        await bare.until(PLAYING)
        await bare.evaluate("(sessionStorage.clear(), demo.stage.halt())")


async def test_an_insecure_origin_is_explained_and_samples_play(browser, server):
    async with another(browser, f"ws://demo.test:{port_of(server.url)}", names="demo.test") as tab:
        assert not await tab.evaluate("isSecureContext")
        assert "https" in await tab.until(notice("speak"))
        await tab.click("sample-mandarin")
        await tab.until(PLAYING)


async def test_missing_web_audio_is_explained(bare, server):
    async with bare.beforehand("delete window.AudioContext; delete window.OfflineAudioContext"):
        await bare.open(page_of(server.url))
        assert "Web Audio" in await bare.until(notice("speak"))


async def test_the_microphone_is_released_while_the_page_asks_for_a_key(bare):
    with hosted(FakeRunner(), api_keys=("correct-horse-battery-staple",)) as host:
        await bare.open(page_of(host.url))
        await bare.until(READY)
        await bare.evaluate(TRACKS)
        await bare.click("speak")
        await bare.until("document.getElementById('key-dialog').open")
        assert await bare.evaluate(f"[{LIVE_TRACKS}, {IDLE}]") == [0, True]
        await bare.click("key-cancel")


async def test_tokens_of_another_model_are_not_played(tab):
    await tab.evaluate("(location.hash = '#model=other&tokens=AAAAAA', undefined)")
    await tab.until("demo.stage.take.title.includes('link')")
    await tab.click("play")
    assert "tokens of other" in await tab.until(notice("play"))
