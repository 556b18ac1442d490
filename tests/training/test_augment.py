"""Each change of a crop has the strength that it is given, and depends on its generator alone."""

import numpy as np
import pytest

from training.augment import Augmentation, augmented, in_room, low_passed, noisy

RATE = 16_000


@pytest.fixture
def speech() -> np.ndarray:
    """A second of noise that stops for its last quarter."""
    pcm = np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 0.1
    pcm[-RATE // 4 :] = 0.0
    return pcm


def level_db(pcm: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(pcm**2) + 1e-20))


def test_noise_has_the_requested_level(speech: np.ndarray) -> None:
    added = noisy(speech, 20.0, np.random.default_rng(1)) - speech
    assert level_db(added) == pytest.approx(level_db(speech) - 20.0, abs=0.1)


def test_a_room_reverberates_and_keeps_the_direct_sound(speech: np.ndarray) -> None:
    heard = in_room(speech, 0.4, 6.0, np.random.default_rng(1))
    assert level_db(heard[-RATE // 4 :][: RATE // 20]) > level_db(speech) - 25.0
    np.testing.assert_array_equal(heard[:40], speech[:40])


def test_the_telephone_filter_keeps_frequencies_below_its_cutoff(speech: np.ndarray) -> None:
    time = np.arange(RATE) / RATE
    low, high = np.sin(2 * np.pi * 1_000 * time), np.sin(2 * np.pi * 5_000 * time)
    np.testing.assert_allclose(low_passed((low + high).astype(np.float32), RATE, 3_400.0), low, atol=1e-3)


def test_the_target_stays_clean_but_for_the_band_of_a_telephone(speech: np.ndarray) -> None:
    how = Augmentation(noise_share=1.0, room_share=1.0, telephone_share=0.0)
    heard, target = augmented(speech, speech, np.random.default_rng(2), how)
    assert np.abs(heard - speech).max() > 1e-3
    np.testing.assert_array_equal(target, speech)
    again, _ = augmented(speech, speech, np.random.default_rng(2), how)
    np.testing.assert_array_equal(heard, again)
