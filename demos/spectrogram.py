"""Spectrograms in one PNG, stacked, with the same axes and the same scale."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FFT_SAMPLES = 1024
WIDTH, HEIGHT = 1100, 300
LEFT, TOP, GAP, BOTTOM = 64, 40, 48, 44
RANGE_DB = 80.0
_COLOURS = np.array(
    [(0, 0, 8), (40, 15, 90), (120, 28, 109), (190, 55, 82), (236, 105, 37), (251, 180, 60), (252, 252, 200)], float
)


def decibels(audio: np.ndarray, columns: int) -> np.ndarray:
    """Short-time power in dB: float32 (n,) -> (FFT_SAMPLES // 2, columns), the highest frequency first."""
    window = np.hanning(FFT_SAMPLES)
    padded = np.pad(audio, FFT_SAMPLES // 2)
    starts = np.linspace(0, max(0, padded.size - FFT_SAMPLES), columns).astype(int)
    frames = np.stack([padded[start : start + FFT_SAMPLES] for start in starts]) * window
    power = np.abs(np.fft.rfft(frames, axis=1)[:, 1:]) ** 2
    return 10 * np.log10(power.T[::-1] + 1e-10)


def draw_pair(panels: list[tuple[str, np.ndarray]], rate: int, path: Path) -> None:
    """Writes a PNG with one spectrogram for each (title, float32 (n,)) at `rate`, 0 to rate / 2."""
    font = ImageFont.load_default(15)
    image = Image.new("RGB", (LEFT + WIDTH + 24, TOP + len(panels) * (HEIGHT + GAP) - GAP + BOTTOM), "white")
    draw = ImageDraw.Draw(image)
    loudest = max(float(decibels(audio, WIDTH).max()) for _, audio in panels)
    for row, (title, audio) in enumerate(panels):
        top = TOP + row * (HEIGHT + GAP)
        image.paste(_coloured(decibels(audio, WIDTH), loudest), (LEFT, top))
        draw.text((LEFT, top - 24), title, "black", font)
        for kilohertz in range(0, rate // 2000 + 1, 4):
            y = top + HEIGHT - kilohertz * HEIGHT * 2000 // rate
            draw.line((LEFT - 6, y, LEFT - 1, y), "black")
            draw.text((LEFT - 10, y), f"{kilohertz} kHz", "black", font, anchor="rm")
    seconds = panels[0][1].size / rate
    bottom = image.height - BOTTOM
    for second in range(int(seconds) + 1):
        x = LEFT + round(second / seconds * WIDTH)
        draw.line((x, bottom, x, bottom + 5), "black")
        draw.text((x, bottom + 8), f"{second} s", "black", font, anchor="mt")
    image.save(path)


def _coloured(levels: np.ndarray, loudest: float) -> Image.Image:
    place = np.clip((levels - loudest) / RANGE_DB + 1, 0, 1) * (len(_COLOURS) - 1)
    steps = np.arange(len(_COLOURS))
    pixels = np.stack([np.interp(place, steps, _COLOURS[:, channel]) for channel in range(3)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8)).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
