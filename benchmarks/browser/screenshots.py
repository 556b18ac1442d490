"""The pictures of the web page in docs/: someone talks to it, over the bundled model, in headless Chromium.

python -m benchmarks.browser.screenshots
"""

import asyncio
import tempfile
from pathlib import Path

import soundfile
from PIL import Image

from benchmarks.browser.__main__ import page, served
from benchmarks.common.sound_room import RATE
from benchmarks.mouth_to_ear.__main__ import ROOT, SPEECH
from neucodec_streaming.client.files import read_audio

TOKENS = 345
"""Of speech: enough to fill the moving pictures, whose six seconds it has passed by then."""
COLOURS = 256
PICTURES = {
    "browser-light": {"width": 1280, "height": 970, "dark": False},
    "browser-dark": {"width": 1280, "height": 970, "dark": True},
    "browser-phone": {"width": 390, "height": 844, "dark": True, "scale": 2},
}


async def take(url: str, recording: Path, folder: Path) -> None:
    """Writes every picture, in few colours."""
    async with page(url, recording) as tab:
        for name, look in PICTURES.items():
            await tab.look(**look)
            await tab.click("talk")
            await tab.until(f"demo.take.tokens.count >= {TOKENS}")
            path = folder / f"{name}.png"
            await tab.screenshot(path, **look)
            await tab.click("talk")
            await tab.until("demo.source === null && !demo.playing")
            await tab.evaluate("demo.take.clear()")
            await asyncio.to_thread(reduce, path)
            print(path, path.stat().st_size)


def reduce(path: Path) -> None:
    """Rewrites a picture with few colours."""
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
            path, optimize=True
        )


def main() -> None:
    """Writes docs/browser-*.png."""
    with tempfile.TemporaryDirectory() as name, served("nano", "default,low,high") as url:
        recording = Path(name) / "speech.wav"
        soundfile.write(recording, read_audio(SPEECH, RATE), RATE, subtype="PCM_16")
        asyncio.run(take(url, recording, ROOT / "docs"))


if __name__ == "__main__":
    main()
