"""Lines at multiples of the frame rate count, other lines and noise do not."""

import numpy as np
import pytest

from benchmarks.metrics.hum import hum

RATE = 16_000
NOISE = np.random.default_rng(0).standard_normal(4 * RATE).astype(np.float32) * 0.01


def lines(spacing_hz: float) -> np.ndarray:
    time = np.arange(len(NOISE)) / RATE
    return sum(0.001 * np.sin(2 * np.pi * spacing_hz * n * time + n * n) for n in range(10, 140))


def test_noise_has_no_hum() -> None:
    assert abs(hum(NOISE)["hum_db"]) < 1.0


def test_lines_at_multiples_of_50_hz_count_and_others_do_not() -> None:
    assert hum(NOISE + lines(50.0))["hum_db"] > 5.0
    assert abs(hum(NOISE + lines(53.0))["hum_db"]) < 1.5


def test_the_level_does_not_matter() -> None:
    humming = NOISE + lines(50.0)
    assert hum(10 * humming)["hum_db"] == pytest.approx(hum(humming)["hum_db"], abs=0.1)


def test_less_than_a_window_has_no_hum() -> None:
    assert hum(NOISE[:3000]) == {}
