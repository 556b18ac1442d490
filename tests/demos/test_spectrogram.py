"""The picture shows what is in the audio, where it is."""

import numpy as np
from PIL import Image

from demos.spectrogram import HEIGHT, LEFT, TOP, WIDTH, decibels, draw_pair

RATE = 24_000


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(RATE * seconds)) / RATE)).astype(np.float32)


def test_a_tone_is_loudest_at_its_frequency():
    levels = decibels(tone(3_000), 50)
    row = levels[:, 25].argmax()
    assert levels.shape == (512, 50)
    assert abs((512 - row) * RATE / 1024 - 3_000) < 50


def test_the_brightest_line_of_each_panel_is_its_tone_and_time_runs_to_the_right(tmp_path):
    late = np.concatenate([np.zeros(RATE // 2, np.float32), tone(9_000, 0.5)])
    draw_pair([("low", tone(3_000)), ("late and high", late)], RATE, tmp_path / "pair.png")
    pixels = np.asarray(Image.open(tmp_path / "pair.png").convert("L")).astype(int)
    first = pixels[TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH]
    assert abs(first[:, WIDTH // 2].argmax() - HEIGHT * 3 // 4) <= 2
    second = pixels[-HEIGHT - 44 : -44, LEFT : LEFT + WIDTH]
    assert abs(second[:, WIDTH * 3 // 4].argmax() - HEIGHT // 4) <= 2
    assert second[:, WIDTH // 4].max() < 20
    assert (pixels == 255).mean() > 0.1


def test_audio_shorter_than_a_window_can_be_drawn(tmp_path):
    draw_pair([("short", tone(500, 0.01))], RATE, tmp_path / "short.png")
    assert Image.open(tmp_path / "short.png").width > WIDTH
