"""The module on a page of another origin: access, reasons for refusals, releasing the microphone, idle audio."""

import asyncio
import json
from pathlib import Path

import pytest
import pytest_asyncio

from benchmarks.browser.chromium import CHROMIUM, browser
from benchmarks.browser.elsewhere import hosted_elsewhere
from tests.server.hosting import hosted
from tests.streaming.engine.fake import FakeRunner

pytestmark = [
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian's chromium)"),
]
DEMOS = Path(__file__).parents[3] / "demos"
REFUSAL = """import("%s/neucodec.js").then(({ connect }) => connect({ kind: "encode", url: "%s", %s }))
    .then((session) => session.close(), (error) => [error.code, error.message, error.retryAfterS])"""
TRACKS = """(() => {
    window.tracks = [];
    const { mediaDevices } = navigator;
    const ask = mediaDevices.getUserMedia.bind(mediaDevices);
    window.prompt = Promise.resolve();
    mediaDevices.getUserMedia = async (constraints) => {
        window.asked = constraints.audio;
        await window.prompt;
        const stream = await ask(constraints);
        tracks.push(...stream.getTracks());
        return stream;
    };
    window.live = () => tracks.filter(({ readyState }) => readyState === "live").length;
    window.until = async (true_) => { while (!true_()) await new Promise((go) => setTimeout(go, 10)); };
})()"""
"""`live()` counts open microphones; the permission prompt is answered when `prompt` resolves."""
ABORT = """(async () => {
        const [context, stop] = [new AudioContext(), new AbortController()];
        let [allow, frames] = [() => {}, 0];
        window.prompt = new Promise((go) => { allow = go; });
        const opening = neucodec.Microphone.open(context, { signal: stop.signal, onFrame: () => { frames += 1; } });
        if (%s) {
            await until(() => window.asked);
            stop.abort(new Error("stopped"));
            const why = await opening.catch(({ message }) => message);
            allow();
            await until(() => tracks.length === 1 && live() === 0);
            return [why, frames];
        }
        allow();
        await opening;
        await until(() => frames > 5);
        stop.abort();
        const [on, until_now] = [live(), frames];
        await new Promise((go) => setTimeout(go, 200));
        return [on, frames - until_now];
})()"""


def page_of(url: str) -> str:
    return url.replace("ws://", "http://")


@pytest.fixture(scope="module")
def server():
    with hosted(FakeRunner()) as host:
        yield host


@pytest.fixture(scope="module")
def origin():
    with hosted_elsewhere() as origin:
        yield origin


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium():
    async with browser() as tab:
        yield tab


@pytest_asyncio.fixture(loop_scope="module")
async def tab(chromium, origin, server):
    """An empty page of another origin, with the module as `neucodec`; console errors fail the test."""
    await chromium.open(origin)
    await chromium.run(TRACKS)
    await chromium.run(f'import("{page_of(server.url)}/neucodec.js").then((all) => {{ window.neucodec = all; }})')
    chromium.console.clear()
    yield chromium
    assert chromium.console == []


async def refusal(tab, host, options: str = "") -> list:
    return await tab.run(REFUSAL % (page_of(host.url), host.url, options))


async def test_a_page_of_an_allowed_origin_can_read_why_it_was_refused(chromium, origin):
    await chromium.open(origin)
    with hosted(FakeRunner(), api_keys=("correct-horse-battery-staple",), allow_origins=(origin,)) as host:
        assert (await refusal(chromium, host))[0] == "unauthorized"
        assert (await refusal(chromium, host, 'accessToken: async () => "correct-horse-battery-staple"')) is None
        wrong = 'accessToken: "correct-horse-battery-staple", profile: "none"'
        assert "none" in (await refusal(chromium, host, wrong))[1]
    with hosted(FakeRunner(), max_sessions=1, allow_origins=("http://*.example.org", origin)) as host:
        keep = f'import("{page_of(host.url)}/neucodec.js").then(({{ connect }}) => connect({{ kind: "encode" }}))'
        await chromium.run(f"{keep}.then((session) => {{ window.kept = session; }})")
        assert (await refusal(chromium, host))[0] == "full"
        await chromium.run("kept.close()")


async def test_a_page_of_a_forbidden_origin_cannot_read_the_reason(chromium, origin):
    await chromium.open(origin)
    with hosted(FakeRunner(), allow_origins=("https://example.org",)) as host:
        code, words, _ = await refusal(chromium, host)
        assert code is None and "dynamically imported module" in words


async def test_a_proxy_without_websockets_is_distinguished_from_a_full_server(tab, server):
    code, words, _ = await tab.run(
        f"""(() => {{
            window.WebSocket = class {{ constructor() {{ setTimeout(() => this.onclose({{}})); }} close() {{}} }};
            return neucodec.connect({{ kind: "encode", url: "{server.url}" }}).catch((e) => [e.code, e.message, 0]);
        }})()""",
    )
    assert code == "no_websocket" and "proxy" in words
    tab.console.clear()  # of the plain request, answered with 426


async def test_an_abort_hides_the_reason_of_a_refusal_that_arrives_later(tab, server):
    message = await tab.run(
        f"""(() => {{
            window.WebSocket = class {{ constructor() {{ setTimeout(() => this.onclose({{}})); }} close() {{}} }};
            const stop = new AbortController();
            window.fetch = async () => (stop.abort(new Error("stopped")), new Response('{{"type": "error"}}'));
            const options = {{ kind: "encode", url: "{server.url}", signal: stop.signal }};
            return neucodec.connect(options).catch(({{ message }}) => message);
        }})()""",
    )
    assert message == "stopped"


async def test_a_microphone_is_opened_without_processing_and_released_on_close(tab):
    said = await tab.run(
        """(async () => {
            const { Microphone } = neucodec;
            const context = new AudioContext();
            const levels = [];
            const microphone = await Microphone.open(context, { onFrame: () => levels.push(microphone?.level ?? 0) });
            await until(() => levels.some((level) => level > 0));
            microphone.muted = true;
            const count = levels.length;
            await until(() => levels.length > count + 20);
            const [devices, on] = [await Microphone.devices(), live()];
            microphone.close();
            return { asked, devices: devices.length, on, off: live(), muted: levels.at(-1), label: microphone.label };
        })()""",
    )
    assert said["asked"] == {
        "channelCount": 1,
        "echoCancellation": False,
        "noiseSuppression": False,
        "autoGainControl": False,
    }
    assert (said["on"], said["off"], said["muted"]) == (1, 0, 0)
    assert said["devices"] >= 1 and said["label"]


@pytest.mark.parametrize("moment", ["while the browser asks", "once it is open"])
async def test_an_abort_releases_the_microphone(tab, moment):
    said = await tab.run(ABORT % json.dumps("asks" in moment))
    assert said == (["stopped", 0] if "asks" in moment else [0, 0])


async def test_a_context_that_cannot_take_the_stream_leaves_no_live_microphone(tab):
    said = await tab.run(
        """(async () => {
            const context = new AudioContext();
            context.createMediaStreamSource = () => { throw new DOMException("another rate", "NotSupportedError"); };
            const why = [];
            for (let i = 0; i < 3; i++) await neucodec.Microphone.open(context, {}).catch((e) => why.push(e.message));
            return [why.length, tracks.length, live()];
        })()""",
    )
    assert said == [3, 3, 0]


async def test_a_supplied_media_stream_is_used_and_not_stopped(tab):
    said = await tab.run(
        """(async () => {
            const context = new AudioContext();
            const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
            let frames = 0;
            const microphone = await neucodec.Microphone.open(context, { stream, onFrame: () => { frames += 1; } });
            await until(() => frames > 5);
            microphone.close();
            const on = live();
            stream.getTracks().forEach((track) => track.stop());
            return [tracks.length, on];
        })()""",
    )
    assert said == [1, 1]


async def test_finish_resolves_after_playback_and_an_idle_context_is_suspended(tab):
    said = await tab.run(
        """(async () => {
            const interrupted = [];
            const context = neucodec.openContext({ onInterrupted: (now) => interrupted.push(now) });
            const speaker = await neucodec.Speaker.open(context);
            const seconds = [];
            for (const count of [12000, 24000]) {
                const from = context.currentTime;
                speaker.push(new Float32Array(count).fill(0.1), 0);
                await speaker.finish();
                seconds.push(context.currentTime - from);
            }
            speaker.push(new Float32Array(240000), 0);
            const cut = speaker.finish();
            speaker.clear();
            await cut;
            await until(() => context.state === "suspended");
            speaker.push(new Float32Array(2400), 0);
            await until(() => context.state === "running");
            await context.suspend(); // as the system does
            await until(() => context.state === "running");
            await speaker.finish();
            return [seconds, interrupted];
        })()""",
    )
    (half, whole), interrupted = said
    assert half == pytest.approx(0.55, abs=0.07) and whole == pytest.approx(1.05, abs=0.07)
    assert interrupted == [True, False]


async def test_a_context_needed_while_suspending_is_not_reported_as_interrupted(tab):
    said = await tab.run(
        """(async () => {
            const interrupted = [];
            const context = neucodec.openContext({ onInterrupted: (now) => interrupted.push(now) });
            const suspend = context.suspend.bind(context);
            let letSleep = null;
            context.suspend = () => { const done = suspend(); letSleep = neucodec.keepAwake(context); return done; };
            await until(() => letSleep !== null && context.state === "running");
            await new Promise((go) => setTimeout(go, 100));
            return [interrupted, context.state];
        })()""",
    )
    assert said == [[], "running"]


async def test_a_voice_is_primed_and_tokens_are_decoded(tab, server):
    said = await tab.run(
        f"""(async () => {{
            let samples = 0;
            const onOutput = (audio) => {{ samples += audio.length; }};
            const wire = {{ outputFormat: "mulaw", outputRate: 8000 }};
            const session = await neucodec.connect({{ kind: "decode", url: "{server.url}", ...wire, onOutput }});
            const {{ tokens }} = await session.prime(new Uint16Array(120).fill(7));
            await session.send(neucodec.tokensFromText("<|speech_1|>".repeat(50)));
            await session.flush();
            const without = await session.prime(null);
            await session.end();
            return [tokens, without.tokens, samples];
        }})()""",
    )
    assert said == [120, 0, 8000]


async def test_the_example_page_talks_and_stops(chromium, server):
    with hosted_elsewhere(DEMOS) as origin:
        await chromium.open(f"{origin}/talk.html?server={server.url}")
        status = "document.getElementById('status').textContent"
        async with asyncio.timeout(10):
            while await chromium.run("document.getElementById('talk').disabled"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await chromium.run("document.getElementById('talk').click()")
            while not (await chromium.run(status)).startswith("Live, 3"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await chromium.run("document.getElementById('talk').click()")
        assert await chromium.run(status) == "Stopped."
        await server.emptied()


async def test_a_hidden_tab_sends_as_fast_as_a_visible_one(server, origin):
    """Timers of a hidden tab are throttled to one call a second."""
    async with browser(throttled=True) as tab:
        await tab.open(origin)
        await tab.send("Target.createTarget", url="about:blank")
        async with asyncio.timeout(10):
            while await tab.run("document.visibilityState") != "hidden":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        ticks, seconds, tokens = await tab.run(
            f"""(async () => {{
                const {{ connect }} = await import("{page_of(server.url)}/neucodec.js");
                let [tokens, ticks] = [0, 0];
                const onOutput = (more) => {{ tokens += more.length; }};
                const session = await connect({{ kind: "encode", url: "{server.url}", onOutput }});
                await new Promise((go) => setTimeout(go, 3000)); // then timers are slow
                const timer = setInterval(() => {{ ticks += 1; }}, 10);
                const from = performance.now();
                await session.send(new Float32Array(60 * 16000));
                await session.flush();
                clearInterval(timer);
                const seconds = (performance.now() - from) / 1000;
                await session.end();
                return [ticks, seconds, tokens];
            }})()""",
        )
    assert tokens == 3000
    assert ticks <= seconds + 1, "timers were not slow"
    assert seconds < 10
