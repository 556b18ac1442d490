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


async def talk(tab) -> None:
    await tab.click("live-tab")
    await tab.click("talk")
    await tab.until(TALKING)


LATE_END = f"(window.loop = demo.live.loop, {late('window.loop', 'finish')}, undefined)"
"""Delays the end of the present sessions, `window.loop`."""


async def test_sound_lasts_after_two_clicks_on_play(tab):
    await tab.evaluate("(document.getElementById('play').click(), document.getElementById('play').click())")
    await tab.until(PLAYING)
    await tab.until("demo.stage.player.position > 1.5")  # the device sleeps after 1 s without a holder


async def test_a_position_selected_while_the_device_starts_is_kept(tab):
    await tab.evaluate("(document.getElementById('play').click(), demo.stage.seek(1.5))")
    await tab.until(PLAYING)
    assert await tab.evaluate("demo.stage.player.position") >= 1.5


async def test_decoding_that_waits_for_the_device_does_not_silence_another_recording(tab):
    await link(tab)
    await tab.evaluate(late("demo.device", "hold"))
    await tab.click("play")
    await tab.click("sample-mandarin")
    await tab.until(f"{TITLE} === 'Mandarin'")
    await tab.evaluate(RELEASED)
    await tab.until(PLAYING)
    assert await tab.evaluate(f"[{VOICE}.length, demo.stage.player._growth]") == [214 * 480, None]


async def test_a_take_is_decoded_once_for_any_number_of_clicks(tab):
    await link(tab)
    await tab.evaluate(late("demo.server", "connect"))
    await tab.click("play")
    await tab.click("play")
    await tab.evaluate(RELEASED)
    await tab.until(f"demo.stage.take.output && {PLAYING}")
    assert await tab.evaluate("window.calls") == 1


async def test_a_growing_take_continues_where_it_was_paused(tab):
    await link(tab)
    await tab.evaluate(late("demo.server", "connect", then="demo.stage.player.playSoon();"))
    await tab.click("play")
    await tab.until("window.calls === 1")
    await tab.evaluate("demo.stage.player.push(new Float32Array(48_000))")
    await tab.until(f"{PLAYING} && demo.stage.player.position > 0.3")
    await tab.click("play")
    at = await tab.evaluate("demo.stage.player.position")
    await tab.click("play")
    await tab.until(PLAYING)
    assert await tab.evaluate("demo.stage.player.position") >= at
    await tab.evaluate(RELEASED)
    await tab.until("demo.stage.take.output")
    assert await tab.evaluate("window.calls") == 1


async def test_damage_is_heard_before_and_after_the_first_playback(tab):
    await link(tab)
    await tab.evaluate(HARM % 10)
    await tab.until("demo.stage._damaged")
    await tab.click("play")
    await tab.until(PLAYING)
    await tab.until(f"!{PLAYING}")
    assert await tab.evaluate(f"{VOICE} === demo.stage._damaged")
    assert await tab.evaluate("document.getElementById('harm').value") == "10"
    await tab.evaluate(HARM % 0)
    await tab.until(f"{VOICE} === demo.stage.take.output")


async def test_the_end_of_decoding_does_not_reset_the_slider(tab):
    await link(tab)
    await tab.evaluate(late("demo.server", "connect"))
    await tab.click("play")
    await tab.until("window.calls === 1")
    await tab.evaluate(f"({HARM % 10}, window.release())")
    await tab.until("demo.stage.take.output && demo.stage._damaged")
    assert await tab.evaluate("document.getElementById('harm').value") == "10"


async def test_an_outdated_refusal_does_not_reset_the_slider(tab):
    await say(tab)
    await tab.until("demo.stage.take.output")
    await tab.evaluate(late("demo.server", "connect", "window.calls === 0", FAILS))
    await tab.evaluate(HARM % 5)
    await tab.until("window.calls === 1")
    await tab.evaluate(f"({HARM % 15}, window.release())")
    await tab.until("demo.stage._damaged")
    assert await tab.evaluate("document.getElementById('harm').value") == "15"
    assert not await tab.evaluate(notice("break"))


@pytest.mark.parametrize("way", ["Escape", "another tab"])
async def test_a_sample_that_loads_slowly_is_not_played_after(tab, way):
    await tab.evaluate(late("window", "fetch", fetched("voices.neucodec")))
    await tab.click("sample-voices")
    await interrupt(tab, way, {"another tab": "live-tab"})
    await tab.evaluate(RELEASED)
    await tab.until(f"{TITLE} === 'Two voices'")
    assert not await tab.evaluate(PLAYING)


@pytest.mark.parametrize("way", ["Escape", "another tab"])
async def test_a_file_that_is_read_slowly_is_not_opened_after(tab, way):
    await tab.evaluate(late("Blob.prototype", "arrayBuffer"))
    await tab.evaluate(drop("slow.tok", bytes(1_000)))
    await interrupt(tab, way, {"another tab": "live-tab"})
    await tab.evaluate(RELEASED)
    assert await tab.evaluate(f"[{TITLE}, {PLAYING}]") == ["A sentence", False]
    assert await tab.evaluate("document.getElementById('file-state').textContent") == ""


async def test_a_sample_selected_while_a_recording_ends_is_played(tab):
    await tab.evaluate(late("demo.server", "connect"))
    await tab.evaluate("(window.encode = window.release, undefined)")
    await tab.evaluate(late("window", "fetch", fetched("voices.neucodec")))
    await tab.click("speak")
    await tab.until("demo.stage.recorder.frames.length >= 60")
    await tab.click("speak")
    await tab.until("demo.stage.recorder.phase === 'finishing'")
    await tab.click("sample-voices")
    await tab.evaluate("window.encode()")
    await tab.until(f"{TITLE} === 'You' && demo.stage.take.output")
    await tab.evaluate(RELEASED)
    await tab.until(f"{TITLE} === 'Two voices' && {PLAYING}")


async def test_an_outdated_sample_that_cannot_be_loaded_is_not_reported(tab):
    await tab.evaluate(late("window", "fetch", fetched("voices.neucodec"), FAILS))
    await tab.click("sample-voices")
    await tab.click("sample-mandarin")
    await tab.until(PLAYING)
    await tab.evaluate(RELEASED)
    assert not await tab.evaluate(notice("samples"))


async def test_an_outdated_file_that_cannot_be_read_is_not_reported(tab):
    await tab.evaluate(late("Blob.prototype", "arrayBuffer", "this.name === 'odd.tok'"))
    await tab.evaluate("(window.read = window.release, undefined)")
    await tab.evaluate(late("demo.server", "connect"))
    await tab.evaluate(drop("odd.tok", bytes(3)))
    await tab.evaluate(drop("tone.wav", b""))
    await tab.evaluate("window.read()")
    await tab.until("!document.getElementById('file-state').textContent")
    assert "tone.wav" in await tab.until(notice("file"))


async def test_a_permission_granted_later_does_not_stop_a_sample(tab):
    await tab.evaluate("""(() => {
        window.permission = { state: "prompt", onchange: null };
        navigator.permissions.query = async () => window.permission;
        window.consent = new Promise((resolve) => (window.agree = resolve));
    })()""")
    await tab.evaluate(KEY % ("speak", "keydown"))
    await tab.evaluate("new Promise((resolve) => setTimeout(resolve, 400))")  # longer than a tap
    await tab.evaluate(KEY % ("speak", "keyup"))
    await tab.until("window.permission.onchange")
    await tab.click("sample-voices")
    await tab.until(PLAYING)
    await tab.evaluate("(window.permission.state = 'granted', window.permission.onchange(), window.agree())")
    assert "ready" in await tab.until(notice("speak"))
    assert await tab.evaluate(PLAYING)


async def test_a_second_comparison_that_fails_does_not_remove_the_first(tab):
    await tab.evaluate("(demo.server.compare = () => new Promise((answer) => (window.answer = answer)), undefined)")
    await say(tab)
    await tab.until("demo.stage.take.output && window.answer")
    await tab.evaluate("(window.first = window.answer, demo.stage.show(demo.stage.take))")
    await tab.evaluate("window.first({ opus: { samples: new Float32Array(8_000), rate: 8_000 } })")
    await tab.evaluate("window.answer({})")
    assert await tab.evaluate("Object.keys(demo.stage.take.others)") == ["opus"]


async def test_an_outdated_video_that_cannot_start_is_not_reported(tab):
    await tab.evaluate(late("demo.device", "hold"))
    await tab.click("share-video")
    await link(tab)
    await tab.evaluate(RELEASED)
    assert not await tab.evaluate(notice("takeaway"))


async def test_an_outdated_answer_of_the_server_is_ignored(tab):
    await tab.evaluate(late("window", "fetch", "window.calls === 0", FAILS))
    await tab.evaluate("(window.first = demo.server.look(), demo.server.look())")
    assert await tab.evaluate("(window.release(), window.first.then(() => demo.server.phase))") == "ready"


async def test_a_link_ends_a_live_talk(tab):
    await talk(tab)
    await link(tab)
    assert await tab.evaluate(f"[demo.live.phase, {LIVE_TRACKS}]") == ["idle", 0]


async def test_a_talk_cancelled_and_started_again_has_one_speaker(tab):
    await tab.click("live-tab")
    await tab.evaluate("[1, 2, 3].forEach(() => document.getElementById('talk').click())")
    await tab.until(TALKING)
    ticks = await tab.evaluate("""new Promise((resolve) => {
        let ticks = 0;
        demo.live.onPlayback = () => (ticks += 1);
        setTimeout(() => resolve(ticks), 500);
    })""")
    assert ticks < 40  # 25 of one speaker


async def test_new_sessions_wait_for_the_old_ones_after_two_changes_of_profile(tab):
    await talk(tab)
    await tab.evaluate(LATE_END)
    await tab.evaluate("(demo.live.choose('default'), demo.live.choose('default'), undefined)")
    await tab.evaluate("demo.live.speaker.finish().then(() => new Promise((resolve) => setTimeout(resolve, 200)))")
    assert await tab.evaluate("[demo.live.loop, demo.live._next]") == [None, None]
    await tab.evaluate(RELEASED)
    await tab.until(f"demo.live.loop && demo.live.loop !== window.loop && {TALKING}")


async def test_escape_during_a_change_of_profile_closes_the_old_sessions(tab):
    await talk(tab)
    await tab.evaluate(LATE_END)
    await tab.evaluate("(demo.live.choose('default'), undefined)")
    await tab.press("Escape")
    await tab.until(QUIET)
    assert await tab.evaluate("window.loop.ready") is None


async def test_a_second_press_on_stop_does_not_wait_for_the_rest(tab):
    await talk(tab)
    await tab.evaluate(LATE_END)
    await tab.click("talk")
    await tab.until("demo.live.phase === 'ending'")
    assert await tab.evaluate("document.getElementById('talk').textContent") == "Stop now"
    await tab.click("talk")
    await tab.until(QUIET)
    assert await tab.evaluate("window.loop.ready") is None


async def test_a_profile_selected_while_a_talk_opens_is_used(tab):
    await tab.evaluate("(demo.server.profile = '', undefined)")
    await tab.evaluate(late("demo.server", "connect", "window.calls === 0"))
    await tab.click("live-tab")
    await tab.click("talk")
    await tab.until("window.calls === 1")
    await tab.evaluate("demo.live.choose('default')")
    await tab.evaluate(RELEASED)
    await tab.until(f"window.calls === 4 && {TALKING}")


@pytest.mark.parametrize("request_of", ["a talk", "a file"])
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
