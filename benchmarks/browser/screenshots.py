"""The screenshots of the web page in docs/, with the bundled model, in headless Chromium.

    python -m benchmarks.browser.screenshots
    python -m benchmarks.browser.screenshots --folder FOLDER    # more of them, for review

docs/browser-pictures.json records the profiles that they show; a test compares it with the server's.
"""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import soundfile
from PIL import Image

from benchmarks.browser.__main__ import page, served
from benchmarks.browser.chromium import Tab
from benchmarks.common.sound_room import RATE
from benchmarks.mouth_to_ear.__main__ import ROOT, SPEECH
from neucodec_streaming.client.files import read_audio

DOCS = ROOT / "docs"
RECORD = DOCS / "browser-pictures.json"
PROFILES = "default,low,high"
COLOURS = 256
DESKTOP = {"width": 1280, "height": 860, "dark": False}
DARK = DESKTOP | {"dark": True}
PHONE = {"width": 390, "height": 844, "dark": False, "scale": 2}
LIVE_TOKENS = 345
"""Enough to fill the six seconds of the live picture."""
SETTLE_MS = 250


async def first_screen(tab: Tab) -> None:
    await tab.evaluate("(demo.stage.halt(), demo.live.halt(), scrollTo(0, 0))")


async def comparing(tab: Tab) -> None:
    await tab.click("sample-voices")
    await tab.until("demo.stage.player.playing && demo.stage.player.position > 2")
    await tab.click("opus")


async def broken(tab: Tab) -> None:
    """Flips bits of the first sentence."""
    await tab.evaluate("location.reload()")
    await tab.until("demo.stage.take && document.getElementById('status').dataset.state === 'ready'")
    await tab.evaluate("""(() => {
        const slider = document.getElementById("harm");
        slider.value = 10;
        slider.dispatchEvent(new Event("input"));
        scrollTo(0, document.body.scrollHeight);
    })()""")


async def speaking(tab: Tab) -> None:
    await first_screen(tab)
    await tab.click("speak")
    await tab.until("demo.stage.recorder.frames.length > 130")


async def live(tab: Tab) -> None:
    await tab.click("live-tab")
    await tab.click("talk")
    await tab.until(f"demo.live.history.tokens.count >= {LIVE_TOKENS}")


async def refused(tab: Tab) -> None:
    await tab.click("speak-tab")
    await tab.evaluate("""(() => {
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File(["Dear Sir"], "letter.txt"));
        document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
    })()""")
    await tab.until("!document.getElementById('file-notice').hidden")


Look = dict[str, int | bool]
PICTURES: dict[str, tuple[Callable[[Tab], Awaitable[None]], Look]] = {
    "light": (first_screen, DESKTOP),
    "dark": (first_screen, DARK),
    "phone": (first_screen, PHONE),
    "live": (live, DARK),
}
MORE = PICTURES | {
    "live-phone": (live, PHONE),
    "phone-dark": (first_screen, PHONE | {"dark": True}),
    "comparing": (comparing, DESKTOP),
    "comparing-phone": (comparing, PHONE | {"height": 1500}),
    "broken": (broken, DESKTOP),
    "broken-dark": (broken, DARK),
    "speaking": (speaking, DARK),
    "error-phone": (refused, PHONE),
}


async def take(url: str, recording: Path, folder: Path, pictures: dict[str, tuple]) -> dict[str, object]:
    """Writes the pictures; returns the profiles that the page offers."""
    async with page(url, recording) as tab:
        await tab.until("demo.stage.take")
        for name, (prepare, look) in pictures.items():
            await first_screen(tab)
            await tab.click("speak-tab")
            await tab.look(**look)
            await prepare(tab)
            await tab.evaluate(f"new Promise((resolve) => setTimeout(resolve, {SETTLE_MS}))")
            path = folder / f"browser-{name}.png"
            await tab.screenshot(path, **look)
            await asyncio.to_thread(reduce, path)
            print(path, path.stat().st_size)
        return await tab.evaluate("demo.server.profiles")


def reduce(path: Path) -> None:
    """Rewrites a picture with a reduced palette."""
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
            path, optimize=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    folder = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as name, served("nano", PROFILES) as url:
        recording = Path(name) / "speech.wav"
        soundfile.write(recording, read_audio(SPEECH, RATE), RATE, subtype="PCM_16")
        profiles = asyncio.run(take(url, recording, folder or DOCS, MORE if folder else PICTURES))
    if folder is None:
        shown = {name: [each["chunk_frames"], each["lookahead_frames"]] for name, each in profiles.items()}
        RECORD.write_text(json.dumps({"profiles": shown}, indent=1) + "\n")


if __name__ == "__main__":
    main()
