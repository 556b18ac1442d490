"""The page in a real browser, over a server with the fake runner: buttons, files, comparison and looks."""

import shutil

import numpy as np
import pytest
import soundfile

from benchmarks.browser.browsers import BROWSERS
from benchmarks.browser.elsewhere import hosted_elsewhere
from tests.server.web.page import (
    COUNTS,
    HARM,
    IDLE,
    KEY,
    LIVE_TRACKS,
    PLAYING,
    READY,
    TRACKS,
    TYPE,
    VIDEO,
    bare,
    browser,
    drop,
    interrupt,
    microphone,
    notice,
    page_of,
    saved,
    say,
    server,
    tab,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]


async def test_the_first_screen_shows_a_sentence_before_any_click_and_takes_no_slot(tab, server):
    drawn = await tab.until("""["input", "tokens", "output"].every((band) => {
        const canvas = document.getElementById(`figure-${band}`);
        if (canvas.width === 0) return false;
        return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean);
    })""")
    assert drawn
    texts = "['pcm-bytes', 'token-bytes'].map((id) => document.getElementById(id).textContent)"
    assert await tab.evaluate(texts) == ["76,800", "240"]
    assert await tab.evaluate("""(() => {
        const size = (each) => parseFloat(getComputedStyle(each).fontSize);
        const largest = Math.max(...[...document.querySelectorAll("body *")].map(size));
        return size(document.querySelector(".counts strong")) === largest;
    })()""")
    assert await tab.evaluate("[demo.device.context, demo.stage.recorder.phase]") == [None, "idle"]
    assert server.app.registry.count == 0


async def test_holding_the_button_records_and_releasing_it_plays_the_decoded_tokens(tab, server):
    await tab.evaluate(KEY % ("speak", "keydown"))
    await tab.until("demo.stage.recorder.tokens.length >= 30")
    assert server.app.registry.count == 1  # an encoder's slot and no decoder's
    assert not await tab.evaluate(PLAYING)
    await tab.evaluate(KEY % ("speak", "keyup"))
    await tab.until(PLAYING)
    assert await tab.evaluate(LIVE_TRACKS) == 0
    await tab.until("demo.stage.take.output")
    await server.emptied()
    tokens, frames, hops = await tab.evaluate(COUNTS)
    assert tokens == frames == hops
    await tab.until(f"!{PLAYING}")
    await tab.until("demo.device.context.state === 'suspended'")


@pytest.mark.parametrize("newer", ["sample-mandarin", "speak", "file"])
async def test_a_sample_that_loads_slowly_does_not_replace_what_was_asked_for_later(tab, newer):
    await tab.evaluate("""(() => {
        const { fetch } = window;
        const late = new Promise((release) => (window.release = release));
        window.fetch = async (url) => {
            if (String(url).includes("voices.neucodec")) await late;
            return fetch(url);
        };
    })()""")
    await tab.click("sample-voices")
    if newer == "file":
        await tab.evaluate(drop("long.tok", bytes(1_000)))
        await tab.until("demo.stage.take.title === 'long.tok'")
    else:
        await tab.click(newer)
        await tab.until(PLAYING if newer != "speak" else "demo.stage.recorder.frames.length")
    before = "[demo.stage.take.title, demo.stage.recorder.isOn]"
    shown = await tab.evaluate(before)
    await tab.evaluate("window.release()")
    await tab.evaluate("new Promise((resolve) => setTimeout(resolve, 500))")
    assert await tab.evaluate(before) == shown
    await tab.evaluate("demo.stage.halt()")


async def test_a_session_that_the_server_ends_is_explained(tab):
    await tab.evaluate("""(async () => {
        const { Refused } = await import("/neucodec.js");
        const ended = () => Promise.reject(new Refused("closed", "The server ended the session (1011 )."));
        demo.server.connect = async () => ({ send: async () => {}, end: ended, close: () => {} });
    })()""")
    await tab.evaluate(drop("voice.tok", bytes(100)))
    assert "ended the session" in await tab.until(notice("play"))


async def test_a_tap_records_until_the_next_tap_or_for_15_s(tab):
    await say(tab)
    await tab.until(PLAYING)
    await tab.click("speak")
    await tab.until(f"demo.stage.recorder.frames.length > 5 && !{PLAYING}")
    await tab.evaluate("(demo.stage.recorder.frames.push(...Array(740).fill(new Float32Array(320))), undefined)")
    await tab.until(f"{IDLE} && {PLAYING}")


@pytest.mark.parametrize("way", ["Escape", "tap", "another tab"])
async def test_stopping_during_the_permission_prompt_leaves_no_open_microphone(tab, way):
    await tab.evaluate("(window.consent = new Promise((resolve) => (window.agree = resolve)), undefined)")
    await tab.click("speak")
    await tab.until("demo.stage.recorder.phase === 'opening'")
    await interrupt(tab, way, {"tap": "speak", "another tab": "live-tab"})
    await tab.until(IDLE)
    await tab.evaluate("(window.agree(), new Promise((resolve) => setTimeout(resolve, 300)))")
    assert await tab.evaluate(f"[{LIVE_TRACKS}, {IDLE}]") == [0, True]


async def test_the_switch_the_loop_and_the_playhead_work_while_it_plays(tab):
    await tab.click("sample-mandarin")
    await tab.until(f"{PLAYING} && demo.stage.player.position > 0.2")
    assert await tab.evaluate("demo.stage.take.seconds") == pytest.approx(4.28)
    for track in ("original", "opus", "codec2", "neucodec"):
        before = await tab.evaluate("demo.stage.player.position")
        await tab.click(track)
        at, chosen = await tab.evaluate("[demo.stage.player.position, demo.stage.player.chosen]")
        assert chosen == track
        assert before <= at < before + 1
    await tab.click("loop")
    await tab.evaluate("demo.stage.seek(4.0)")
    assert await tab.evaluate("demo.stage.player.position") == pytest.approx(4.0, abs=0.2)
    await tab.until("demo.stage.player.position < 1")
    assert await tab.evaluate(PLAYING)
    await tab.click("play")
    await tab.until(f"!{PLAYING}")
    where = await tab.evaluate("demo.stage.player.position")
    assert float(await tab.evaluate("document.getElementById('seek').value")) == pytest.approx(where, abs=0.03)


async def test_damaged_and_lost_tokens_are_marked_and_decoded_again(tab, server):
    await say(tab)
    await tab.until("demo.stage.take.output")
    await tab.evaluate("(window.whole = demo.stage.player._tracks.get('neucodec').samples, undefined)")
    await tab.evaluate(HARM % 10)
    await tab.until("demo.stage.player._tracks.get('neucodec').samples !== window.whole")
    damaged = await tab.evaluate("demo.stage.figure._view.damage.filter(Boolean).length")
    assert damaged > 30  # of 60 tokens of 16 bits
    await tab.click("lose")
    await tab.until("demo.stage.figure._view.lost.some(Boolean)")
    await tab.evaluate(HARM % 0)
    await tab.until("demo.stage.player._tracks.get('neucodec').samples === window.whole")
    await server.emptied()


async def test_a_take_is_saved_and_linked(tab, tmp_path):
    await say(tab)
    await tab.until("demo.stage.take.output")
    tokens = await tab.evaluate("Array.from(demo.stage.take.tokens)")
    await tab.save_to(tmp_path)
    for button in ("save-tokens", "save-wav", "share-picture"):
        await tab.click(button)
    files = [tmp_path / f"speech.{suffix}" for suffix in ("tok", "wav", "png")]
    await saved(*files)
    assert np.fromfile(files[0], "<u2").tolist() == tokens
    audio, rate = soundfile.read(files[1])
    assert (rate, audio.shape) == (24_000, (480 * len(tokens),))
    fragment = await tab.evaluate(
        "import('/page/tokens.js').then(({ fragmentOf }) => fragmentOf(demo.stage.take.tokens, 'fake'))"
    )
    await tab.evaluate(f"(location.hash = {fragment!r}, undefined)")
    await tab.until("demo.stage.take.title.includes('link')")
    assert await tab.evaluate("Array.from(demo.stage.take.tokens)") == tokens
    await tab.click("play")
    await tab.until(f"demo.stage.take.output?.length === {480 * len(tokens)}")


@pytest.mark.skipif(shutil.which("opusenc") is None or shutil.which("c2enc") is None, reason="needs opus-tools, codec2")
async def test_the_visitors_own_speech_is_compared_with_the_codecs_of_the_server(tab):
    await say(tab)
    await tab.until("Object.keys(demo.stage.take.others).length === 2")
    shown = "['opus', 'codec2'].map((name) => !document.getElementById(`${name}-choice`).hidden)"
    assert await tab.until(f"{shown}.every(Boolean)")
    seconds = await tab.evaluate("demo.stage.take.seconds")
    sizes = await tab.evaluate(
        "Object.values(demo.stage.take.others).map(({ samples, rate }) => samples.length / rate)"
    )
    assert sizes == pytest.approx([seconds] * 2)
    for track in ("opus", "codec2"):
        await tab.click(track)
        assert await tab.evaluate("demo.stage.player.chosen") == track
    await tab.evaluate(HARM % 10)
    await tab.until("demo.stage._damaged")


async def test_a_server_without_other_codecs_leaves_them_out(tab):
    await tab.evaluate("(demo.server.codecs = [], undefined)")
    await say(tab)
    await tab.until("demo.stage.take.output")
    hidden = await tab.evaluate("['opus', 'codec2'].map((name) => document.getElementById(`${name}-choice`).hidden)")
    assert hidden == [True, True]
    assert await tab.evaluate("demo.server.compare(demo.stage.take.input)") == {}
    await tab.evaluate("demo.server.look()")


async def test_a_video_has_the_picture_and_the_sound_of_the_take(tab, server, tmp_path):
    await say(tab)
    await tab.until(f"demo.stage.take.output && !{PLAYING}")
    await tab.save_to(tmp_path)
    await tab.click("share-video")
    assert "Recording" in await tab.until("document.getElementById('takeaway-state').textContent")
    await tab.until("!document.getElementById('share-video').disabled")
    path = tmp_path / f"speech.{await tab.evaluate(TYPE)}"
    await saved(path)
    spoken = await tab.evaluate("demo.stage.take.seconds")
    await tab.until("demo.device.context.state === 'suspended'")
    with hosted_elsewhere() as origin:  # the page's policy forbids blob: videos
        await tab.open(origin)
        width, height, seconds, loudest = await tab.run(VIDEO % list(path.read_bytes()))
    assert (width, height) == (1200, 672)
    assert seconds == pytest.approx(spoken, abs=0.5)
    assert loudest > 0.05
    await tab.open(page_of(server.url))
    await tab.until(READY)
    await tab.evaluate(TRACKS)


@pytest.mark.parametrize("way", ["another take", "Escape", "another tab"])
async def test_a_video_in_progress_ends_with_the_take_with_escape_and_with_the_tab(tab, way):
    await tab.click("sample-voices")
    await tab.until(PLAYING)
    await tab.click("share-video")
    await tab.until("document.getElementById('takeaway-state').textContent.includes('Recording')")
    await interrupt(tab, way, {"another take": "sample-mandarin", "another tab": "live-tab"})
    if way == "another take":
        await tab.until("demo.stage.take.title === 'Mandarin'")
    await tab.until("!document.getElementById('share-video').disabled")
    await tab.until("![...demo.device._holders.keys()].some((name) => name.startsWith('video'))")
    assert not await tab.evaluate("document.getElementById('share-video').disabled")
    assert await tab.evaluate("document.getElementById('takeaway-state').textContent") == ""


async def test_tokens_dropped_in_are_played(tab):
    await tab.evaluate(drop("voice.txt", "".join(f"<|speech_{token}|>" for token in range(60)).encode()))
    await tab.until("demo.stage.take.output?.length === 60 * 480")
    assert await tab.evaluate("Array.from(demo.stage.take.tokens)") == list(range(60))
    assert await tab.evaluate("demo.stage.take.input") is None


async def test_audio_is_opened_and_the_same_file_once_more(tab, tmp_path):
    path = tmp_path / "tone.wav"
    soundfile.write(path, np.full((22_050, 2), 0.1), 44_100)
    for _ in range(2):
        await tab.evaluate("(demo.stage.take = null, undefined)")
        await tab.choose("file", path)
        await tab.until("demo.stage.take?.output?.length === 25 * 480")


async def test_the_page_does_not_ask_firefox_for_a_latency_that_can_block_forever(browser, bare, server):
    asked = "get() { window.asked = true; return 0.03; }"
    async with bare.beforehand(f"Object.defineProperty(AudioContext.prototype, 'outputLatency', {{ {asked} }})"):
        await bare.open(page_of(server.url))
        await bare.until(READY)
        await bare.click("play")
        await bare.until(PLAYING)
        await bare.click("talk")
        words = await bare.until(
            "document.getElementById('live-latency').textContent.match(/device adds (.*)\\./)?.[1]"
        )
        await bare.evaluate("(demo.stage.halt(), demo.live.halt())")
        is_firefox = browser is BROWSERS["firefox"]
        assert bool(await bare.evaluate("window.asked")) != is_firefox
        assert (words == "some more") == is_firefox


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("noise.wav", b"no audio", "cannot read it as audio"),
        ("odd.tok", b"abc", "not a whole number"),
        ("letter.txt", b"Dear Sir", "no <|speech_N|>"),
    ],
)
async def test_an_invalid_file_changes_nothing_and_is_explained(tab, name, content, words):
    await tab.evaluate("(window.before = demo.stage.take, undefined)")
    await tab.evaluate(drop(name, content))
    assert words in await tab.until(notice("file"))
    assert await tab.evaluate("demo.stage.take === window.before")


async def test_the_page_offers_only_the_kinds_that_are_served(tab):
    await tab.evaluate("(demo.server.kinds = ['decode'], demo.server._be('ready', 'ready'))")
    hidden = "['speak', 'live-tab', 'break'].map((id) => document.getElementById(id).hidden)"
    assert await tab.evaluate(hidden) == [True, True, False]
    await tab.evaluate("(demo.server.kinds = ['encode'], demo.server._be('ready', 'ready'))")
    assert await tab.evaluate(hidden) == [False, True, True]


@pytest.mark.parametrize(("width", "height"), [(320, 640), (390, 844), (820, 1180), (1280, 800)])
async def test_the_page_fits_every_screen_size(tab, width, height):
    await tab.look(width=width, height=height, dark=False)
    for name in ("live-tab", "speak-tab"):
        await tab.click(name)
        assert await tab.evaluate("document.documentElement.scrollWidth") <= width
        hidden = await tab.evaluate("""[...document.querySelectorAll("button, label, canvas, a")]
            .filter((each) => each.checkVisibility() && !each.closest("dialog"))
            .filter((each) => each.getBoundingClientRect().right > innerWidth + 1 || each.offsetWidth < 8)
            .map((each) => each.id || each.textContent)""")
        assert hidden == []
    # the button is visible without scrolling
    assert await tab.evaluate("document.getElementById('speak').getBoundingClientRect().bottom <= innerHeight")
    assert await tab.evaluate("document.getElementById('speak').getBoundingClientRect().height >= 40")


async def test_dark_and_light_differ_and_can_be_read(tab):
    for dark in (False, True):
        await tab.look(width=1280, height=800, dark=dark)
        paper, ink, muted, edge = await tab.evaluate("""["--paper", "--ink", "--muted", "--edge"].map((name) => {
            const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
            const part = (at) => parseInt(hex.slice(at, at + 2), 16) / 255;
            const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
            return 0.2126 * linear(part(1)) + 0.7152 * linear(part(3)) + 0.0722 * linear(part(5));
        })""")
        assert (paper < 0.1) == dark
        for text, least in ((ink, 7), (muted, 4.5), (edge, 3)):  # WCAG AAA, AA, and the contrast of edges
            bright, low = max(paper, text), min(paper, text)
            assert (bright + 0.05) / (low + 0.05) >= least
