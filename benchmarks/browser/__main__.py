"""The web page in headless browsers, with recorded speech as the microphone, against its own server over loopback.

Reports tokens per second; the latency that the page shows, and the delay between input and output by cross-correlation;
underruns; STOI of the page's output and of the Python client's for the same speech; the page's latency, memory and DOM
nodes every half minute, after garbage collection; and on the Speak tab, the time from releasing the button to the first
sound.

    python -m benchmarks.browser --minutes 3
    python -m benchmarks.browser --browsers firefox
"""

import argparse
import asyncio
import base64
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from pystoi import stoi

from benchmarks.browser.browsers import BROWSERS, add_browsers
from benchmarks.browser.tab import Tab, ahead_of_others
from benchmarks.common.sound_room import RATE
from benchmarks.common.surroundings import RESULTS_FOLDER, write_report
from benchmarks.mouth_to_ear.__main__ import SPEECH, serving
from benchmarks.mouth_to_ear.delay import MAX_S, delay_ms
from neucodec_streaming.client.cli import main as client
from neucodec_streaming.client.files import read_audio
from neucodec_streaming.config import INPUT_RATE, OUTPUT_RATE
from neucodec_streaming.resampler import resample

RESULTS = RESULTS_FOLDER / "browser.json"
LEAD_S = 0.5
WATCHED_S = 30
SETTLED_S = 5.0
"""Seconds of talking until the page's memory is stable: its 6 s of pictures are nearly full."""
EAVESDROP = """(() => {
    window.said = { start: null, parts: [] };
    window.heard = { start: null, parts: [] };
    demo.live._hear = (samples, time) => {
        said.start ??= time;
        said.parts.push(samples.slice());
        Object.getPrototypeOf(demo.live)._hear.call(demo.live, samples, time);
    };
    demo.live.onPlayback = ({ heard: samples, time }) => {
        heard.start ??= time - 0.02;
        heard.parts.push(samples);
    };
})()"""
UNDERRUNS = "demo.live.underruns"
COUNTED = "[demo.live.history.tokens.count, demo.device.context.currentTime]"
PERCENTILES = {"p50": 50, "p95": 95, "max": 100}
PARTS = ("computingMs", "bufferMs", "restMs")
RECORDED = """new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve([%s.start, reader.result.split(",")[1]]);
    reader.readAsDataURL(new Blob(%s.parts));
})"""


SPOKEN_S = (2.4, 14.0)
FIRST_SOUND = """new Promise((resolve) => {
    const { context } = demo.device;
    const ear = new AnalyserNode(context, { fftSize: 2048 });
    const block = new Float32Array(2048);
    const connect = AudioNode.prototype.connect;
    AudioNode.prototype.connect = function (to, ...rest) {
        if (to === context.destination) connect.call(this, ear);
        return connect.call(this, to, ...rest);
    };
    const released = performance.now();
    document.getElementById("speak").click();
    const listen = () => {
        ear.getFloatTimeDomainData(block);
        if (!block.some((sample) => Math.abs(sample) > 1e-4)) return setTimeout(listen, 2);
        AudioNode.prototype.connect = connect;
        resolve(performance.now() - released);
    };
    listen();
})"""
"""Milliseconds from releasing the button until a sample that is not silent leaves for the device."""


@dataclass(frozen=True)
class Track:
    """Audio at RATE, and the time of its first sample, in seconds of the page's sound device."""

    audio: np.ndarray
    start_s: float


async def track(tab: Tab, name: str, rate: int) -> Track:
    """Returns the audio `said` or `heard` since EAVESDROP."""
    start_s, text = await tab.evaluate(RECORDED % (name, name))
    return Track(resample(np.frombuffer(base64.b64decode(text), "<f4"), rate, RATE), start_s)


@contextmanager
def served(model: str, profiles: str) -> Iterator[str]:
    """Starts a server at real-time priority, if permitted; yields its URL."""
    with ExitStack() as stack:
        with ahead_of_others():
            url = stack.enter_context(serving(model, profiles))
        yield url


@asynccontextmanager
async def page(url: str, microphone: Path, browser: str = "chromium") -> AsyncIterator[Tab]:
    """Yields the page of a server once it is ready; this recording is its microphone."""
    async with BROWSERS[browser].open(microphone, ahead=True) as tab:
        await tab.open(url.replace("ws://", "http://"))
        await tab.until("document.getElementById('status').dataset.state === 'ready'")
        yield tab
        await tab.evaluate("demo.live.halt()")


def later_ms(said: Track, heard: Track, seconds: float) -> float:
    """Returns the delay between `said` and `heard` over the last seconds, on the clock of the device."""
    size, longest = round(seconds * RATE), round(MAX_S * RATE)
    start = said.audio.size - size
    offset = round((said.start_s - heard.start_s) * RATE)
    ear = np.pad(heard.audio, (0, longest))[start + offset : start + offset + size + longest]
    return delay_ms(said.audio[start:], ear)


def intelligibility(speech: np.ndarray, heard: np.ndarray) -> float:
    """Returns STOI of `speech` as heard, both at RATE; the speech may start anywhere in it."""
    first, size = int(np.flatnonzero(heard)[0]), speech.size + round(MAX_S * RATE)
    ear = np.pad(heard, (round(LEAD_S * RATE), size))[first : first + size]  # the microphone may miss the first sounds
    at = round(delay_ms(speech, ear) * RATE / 1000)
    return float(stoi(speech, ear[at : at + speech.size], RATE))


def played_by_client(url: str, recording: Path, folder: Path) -> np.ndarray:
    output = folder / "client.wav"
    assert client(["roundtrip", str(recording), str(output), "--server", url]) == 0
    return resample(read_audio(output, OUTPUT_RATE), OUTPUT_RATE, RATE)


async def memory(tab: Tab) -> dict[str, float]:
    """Returns the page's live objects, and the memory of its processes, including the audio thread."""
    await tab.collect_garbage()
    return await tab.alive() | {"resident_mb": round(tab.resident_mb(), 1)}


@dataclass(frozen=True)
class Spoken:
    """`shown` is the page's latency and its parts at the end."""

    said: Track
    heard: Track
    underruns: int
    tokens_a_second: float
    shown: dict[str, float]


async def speak(tab: Tab, seconds: float) -> Spoken:
    """Lets the page hear its microphone for `seconds`, and play all of it."""
    await tab.evaluate(EAVESDROP)
    before = await tab.evaluate(UNDERRUNS)
    await tab.click("talk")
    await tab.until("demo.live.history.tokens.count > 0")
    first = await tab.evaluate(COUNTED)
    await tab.until(f"demo.live.history.input.count >= {round(seconds * INPUT_RATE)}")
    last, shown = await tab.evaluate(f"[{COUNTED}, demo.live.loop.latency]")
    await tab.click("talk")
    await tab.until("demo.live.phase === 'idle' && !demo.live.playing")
    return Spoken(
        await track(tab, "said", INPUT_RATE),
        await track(tab, "heard", OUTPUT_RATE),
        await tab.evaluate(UNDERRUNS) - before,
        (last[0] - first[0]) / (last[1] - first[1]),
        shown,
    )


async def quality(url: str, speech: np.ndarray, recording: Path, browser: str) -> dict[str, float]:
    async with page(url, recording, browser) as tab:
        spoken = await speak(tab, speech.size / RATE)
    alone = await asyncio.to_thread(played_by_client, url, recording, recording.parent)
    return {
        "stoi_page": round(intelligibility(speech, spoken.heard.audio), 3),
        "stoi_client": round(intelligibility(speech, alone), 3),
        "underruns_meanwhile": spoken.underruns,
        "shown_ms": round(spoken.shown["totalMs"], 1),
        "correlated_ms": later_ms(spoken.said, spoken.heard, seconds=3),
    }


async def letting_go(url: str, recording: Path, browser: str) -> dict[str, object]:
    """Measures the Speak tab. Page and client start from the same audio, which the page's microphone recorded."""
    heard_ms: list[float] = []
    async with page(url, recording, browser) as tab:
        for seconds in SPOKEN_S:
            await tab.click("speak")
            await tab.until(f"demo.stage.recorder.frames.length >= {round(seconds * 50)}")
            heard_ms.append(await tab.evaluate(FIRST_SOUND))
            await tab.until("demo.stage.take.output && !demo.stage.player.playing")
        said, played = [await samples(tab, f"demo.stage.take.{name}") for name in ("input", "output")]
    said_path = recording.with_name("said.wav")
    soundfile.write(said_path, said, INPUT_RATE, subtype="PCM_16")
    alone = await asyncio.to_thread(played_by_client, url, said_path, recording.parent)
    speech, output = resample(said, INPUT_RATE, RATE), resample(played, OUTPUT_RATE, RATE)
    size = min(speech.size, output.size, alone.size)
    return {
        "first_sound_ms": [round(each, 1) for each in heard_ms],
        "spoken_s": list(SPOKEN_S),
        "stoi_spoken_page": round(float(stoi(speech[:size], output[:size], RATE)), 3),
        "stoi_spoken_client": round(float(stoi(speech[:size], alone[:size], RATE)), 3),
    }


async def samples(tab: Tab, name: str) -> np.ndarray:
    """Returns a Float32Array of the page."""
    text = await tab.evaluate(f"""new Promise((resolve) => {{
        const reader = new FileReader();
        reader.onload = () => resolve(reader.result.split(",")[1]);
        reader.readAsDataURL(new Blob([{name}]));
    }})""")
    return np.frombuffer(base64.b64decode(text), "<f4")


async def endurance(url: str, recording: Path, browser: str, seconds: float) -> dict[str, object]:
    async with page(url, recording, browser) as tab:
        await tab.click("live-tab")
        await tab.click("talk")
        await asyncio.sleep(SETTLED_S)
        figures: list[dict[str, float]] = []
        memories = [await memory(tab)]
        first = await tab.evaluate(COUNTED)
        for second in range(round(seconds)):
            await asyncio.sleep(1)
            figures.append(await tab.evaluate("demo.live.loop.latency"))
            if second % WATCHED_S == WATCHED_S - 1:
                memories.append(await memory(tab))
        last = await tab.evaluate(COUNTED)
        underruns = await tab.evaluate(UNDERRUNS)
    above_ms = [each["totalMs"] - each["modelMs"] for each in figures]
    pieces = [above_ms[start : start + WATCHED_S] for start in range(0, len(above_ms), WATCHED_S)]
    return {
        "seconds": seconds,
        "tokens_a_second": round((last[0] - first[0]) / (last[1] - first[1]), 2),
        "algorithmic_ms": figures[0]["modelMs"],
        "above_ms": {name: round(float(np.percentile(above_ms, q)), 1) for name, q in PERCENTILES.items()},
        "parts_ms": {part: round(float(np.median([each[part] for each in figures])), 1) for part in PARTS},
        "underruns": underruns,
        "above_ms_each_half_minute": [round(float(np.median(piece)), 1) for piece in pieces],
        "memory_each_half_minute": memories,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--profile", default="default")
    parser.add_argument("--out", type=Path, default=RESULTS)
    add_browsers(parser)
    arguments = parser.parse_args()
    speech = read_audio(SPEECH, RATE)
    report: dict[str, object] = {"model": arguments.model, "profile": arguments.profile}
    for browser in arguments.browsers:
        with tempfile.TemporaryDirectory() as name, served(arguments.model, arguments.profile) as url:
            recording = Path(name) / "speech.wav"
            soundfile.write(recording, speech, RATE, subtype="PCM_16")
            found: dict[str, object] = dict(asyncio.run(quality(url, speech, recording, browser)))
            found |= asyncio.run(letting_go(url, recording, browser))
            found |= asyncio.run(endurance(url, recording, browser, arguments.minutes * 60))
        print(browser, json.dumps(found, indent=1))
        report[browser] = found
    write_report(arguments.out, report)


if __name__ == "__main__":
    main()
