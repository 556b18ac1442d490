"""The page in a real browser: a slow or repeated request never replaces, stops or outlives a newer one."""

import pytest

from tests.server.hosting import hosted
from tests.server.web.page import (
    HARM,
    KEY,
    LIVE_TRACKS,
    PLAYING,
    QUIET,
    READY,
    TALKING,
    TRACKS,
    bare,
    browser,
    drop,
    interrupt,
    microphone,
    notice,
    page_of,
    say,
    server,
    tab,
)
from tests.streaming.engine.fake import FakeRunner

pytestmark = [
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]
FAILS = """throw new TypeError("The network is down.");"""
LATE = """(() => {
    const slow = %s;
    const original = slow["%s"];
    const late = new Promise((release) => (window.release = release));
    window.calls = 0;
    slow["%s"] = async function (...given) {
        const isLate = %s;
        window.calls += 1;
        if (isLate) {
            await late;
            %s
        }
        return original.apply(this, given);
    };
})()"""
RELEASED = "(window.release(), new Promise((resolve) => setTimeout(resolve, 300)))"
LINK = f"(location.hash = '#model=fake&tokens={'A' * 400}', undefined)"
TITLE = "demo.stage.take.title"
VOICE = "demo.stage.player._tracks.get('neucodec').samples"


def late(owner: str, method: str, which: str = "true", then: str = "") -> str:
    """Delays those calls of a method for which `which` holds until `release` is called."""
    return LATE % (owner, method, method, which, then)


def fetched(path: str) -> str:
    return f"String(given[0]).includes('{path}')"


async def link(tab) -> None:
    await tab.evaluate(LINK)
    await tab.until(f"{TITLE}.includes('link')")


async def test_an_outdated_answer_of_the_server_is_ignored(tab):
    await tab.evaluate(late("window", "fetch", "window.calls === 0", FAILS))
    await tab.evaluate("(window.first = demo.server.look(), demo.server.look())")
    assert await tab.evaluate("(window.release(), window.first.then(() => demo.server.phase))") == "ready"


@pytest.mark.parametrize("request_of", ["a file"])
async def test_a_cancelled_request_asks_for_no_key(bare, request_of):
    with hosted(FakeRunner(), api_keys=("correct-horse-battery-staple",)) as host:
        await bare.open(page_of(host.url))
        await bare.until(READY)
        await bare.evaluate(TRACKS)
        await bare.evaluate(late("window", "fetch", fetched("/v1/decode")))
        if request_of == "a talk":
            await bare.click("live-tab")
            await bare.click("talk")
        else:
            await bare.evaluate(drop("voice.tok", bytes(100)))
        await bare.until("window.calls === 1")
        await bare.press("Escape")
        await bare.evaluate(RELEASED)
        assert not await bare.evaluate("document.getElementById('key-dialog').open")
        assert await bare.evaluate(LIVE_TRACKS) == 0


async def test_requests_that_need_a_key_share_one_question(tab):
    await tab.evaluate("(window.answers = Promise.all([1, 2].map(() => demo.server.askForKey())), undefined)")
    await tab.click("key-cancel")
    assert await tab.evaluate("window.answers") == [False, False]
