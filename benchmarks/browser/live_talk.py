"""A live talk with the module on a page of another origin: the latency of playback, and interruptions of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from benchmarks.browser.tab import Tab
from benchmarks.common.faulty_proxy import Proxy

RECOVERY_S = 2.0
TALK = """(async () => {
    const { Microphone, Speaker, connect, openContext } = await import("%s/neucodec.js");
    const context = openContext();
    const talk = { skipped: 0, states: [], plays: 0, latencyMs: 0 };
    const onPlayback = ({ playing, position, time }) => {
        if (!playing) return;
        const { input, output } = talk.session.session.utterance;
        const sample = input + (position - output) / 1.5;
        talk.latencyMs = (time - talk.clock - sample / 16000) * 1000;
        talk.plays += 1;
    };
    const speaker = await Speaker.open(context, { live: true, onPlayback });
    const onSkip = (seconds) => { talk.skipped += seconds; };
    talk.session = await connect({
        kind: "roundtrip",
        url: "%s",
        live: true,
        onOutput: (audio, position) => speaker.push(audio, position),
        onState: (state, resumed) => {
            talk.states.push([state, resumed]);
            talk[state === "lost" ? "lostAt" : "backAt"] = performance.now();
        },
        onSkip,
    });
    const onFrame = ({ samples, time }) => {
        talk.clock = time - talk.session.session.inputPosition / 16000;
        talk.session.sendNow(samples);
    };
    talk.microphone = await Microphone.open(context, { live: true, onFrame, onSkip });
    talk.stop = () => { talk.microphone.close(); talk.session.close(); speaker.close(); return context.close(); };
    window.talk = talk;
})()"""
"""`talk.latencyMs` is the time from the microphone to the device for the sound that is being played."""
LATER = """new Promise((resolve) => {
    const { plays } = talk;
    setTimeout(() => resolve(talk.plays > plays ? talk.latencyMs - talk.session.ready.latency_ms : null), 200);
})"""
BLOCK = "(() => { const end = performance.now() + 1500; while (performance.now() < end); })()"


@asynccontextmanager
async def talking(tab: Tab, module: str, line: str) -> AsyncIterator[None]:
    """Talks over `line` with the module from `module`; enters when a second of it has been heard."""
    await tab.run(TALK % (module, line))
    try:
        async with asyncio.timeout(20):
            while await tab.run("talk.plays") < 50:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        yield
    finally:
        await tab.run("talk.stop()")


async def above_ms(tab: Tab) -> float:
    """Returns the latency above the algorithmic one, RECOVERY_S from now."""
    await asyncio.sleep(RECOVERY_S)
    found = await tab.run(LATER)
    assert found is not None, await tab.run("[talk.states, talk.session.failure?.message]")
    return found


def _away(seconds: float, is_cut: bool) -> Callable[[Tab, Proxy], Awaitable[None]]:
    async def fault(tab: Tab, line: Proxy) -> None:
        if is_cut:
            line.down()
            line.cut()
        else:
            line.stall()
        await asyncio.sleep(seconds)
        await line.up()
        line.resume()

    return fault


async def _busy(tab: Tab, line: Proxy) -> None:
    await tab.run(BLOCK)


INTERRUPTIONS: Mapping[str, Callable[[Tab, Proxy], Awaitable[None]]] = {
    "cut of 1 s": _away(1, is_cut=True),
    "cut of 5 s": _away(5, is_cut=True),
    "stall of 1 s": _away(1, is_cut=False),
    "stall of 5 s": _away(5, is_cut=False),
    "page busy for 1.5 s": _busy,
}
