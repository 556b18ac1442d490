"""Inaudible cuts: whole periods of a tone and of speech, anywhere in noise, and none at an onset."""

from collections.abc import Iterator

import numpy as np
import pytest
from pystoi import stoi

from neucodec_streaming.client.files import read_audio
from neucodec_streaming.client.time_scale import TimeScale, overlap_add
from neucodec_streaming.config import OUTPUT_RATE
from tests.client.test_jitter import SPEECH

RATE = OUTPUT_RATE
SCALE = TimeScale(RATE)


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE).astype(np.float32) / 2


def noise(seconds: float, level: float = 0.1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, level, int(seconds * RATE)).astype(np.float32)


def compressed(audio: np.ndarray, loudest: float = 0.0, every: int = RATE // 10) -> tuple[np.ndarray, list]:
    """Cuts each `every` samples; returns the audio, and the cuts with their positions."""
    parts, cuts, done = [], [], 0
    while done + SCALE.ahead_samples <= audio.size:
        cut = SCALE.cut(audio[done : done + SCALE.ahead_samples], loudest)
        if cut is not None:
            cuts.append((done, cut.lag))
            parts.append(cut.overlap)
            done += cut.lag + cut.overlap.size
        parts.append(audio[done : done + every])
        done += every
    return np.concatenate([*parts, audio[done:]]), cuts


@pytest.mark.parametrize("hertz", [70, 100, 123.4, 220, 399])
def test_a_tone_loses_whole_periods_and_stays_a_tone(hertz):
    audio = tone(hertz)
    heard, cuts = compressed(audio)
    assert len(cuts) >= 8
    for _, lag in cuts:
        assert abs(lag * hertz / RATE - round(lag * hertz / RATE)) < 0.02
    assert np.abs(np.diff(heard)).max() <= 1.1 * np.abs(np.diff(audio)).max()
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(heard.size)))
    assert np.argmax(spectrum) * RATE / heard.size == pytest.approx(hertz, abs=2)


def test_quiet_noise_is_cut_and_keeps_its_loudness():
    audio = noise(2.0)
    heard, cuts = compressed(audio, loudest=1.0)
    assert len(cuts) >= 10
    powers = np.mean(np.square(heard[: heard.size // 240 * 240].reshape(-1, 240)), axis=1)
    assert powers.min() > 0.5 * np.mean(np.square(audio)) and powers.max() < 2 * np.mean(np.square(audio))


def test_noise_that_is_as_loud_as_speech_is_left_alone():
    assert not compressed(noise(1.0), loudest=0.01)[1]


def test_an_onset_is_left_alone():
    audio = np.concatenate([noise(0.004, 1e-4), noise(0.1, 0.3, seed=1)])[: SCALE.ahead_samples]
    assert SCALE.cut(audio, 0.09) is None


def test_digital_silence_is_cut():
    assert SCALE.cut(np.zeros(SCALE.ahead_samples, np.float32), 0.0) is not None


def reference(audio: np.ndarray, cuts: list) -> Iterator[np.ndarray]:
    done = 0
    for position, lag in cuts:
        yield audio[done:position]
        done = position + lag
    yield audio[done:]


@pytest.mark.parametrize("noise_db", [None, 15])
def test_shortened_speech_is_as_intelligible_as_its_reference(noise_db):
    clean = read_audio(SPEECH, RATE)
    level = 0.0 if noise_db is None else float(np.sqrt(np.mean(clean**2))) * 10 ** (-noise_db / 20)
    audio = clean + noise(clean.size / RATE + 1, level)[: clean.size]
    loudest = max(float(np.mean(part**2)) for part in np.array_split(audio, 800))
    heard, cuts = compressed(audio, loudest)
    assert sum(lag for _, lag in cuts) > 0.05 * audio.size
    cut = np.concatenate(list(reference(clean, cuts)))
    assert stoi(clean, audio, RATE) - stoi(cut, heard, RATE) < 0.02


def test_an_overlap_starts_with_the_first_signal_and_ends_with_the_second():
    before, after = np.full(240, 0.5, np.float32), np.full(240, -0.25, np.float32)
    joined = overlap_add(before, after, 0.0)
    assert joined[0] == pytest.approx(0.5, abs=0.01) and joined[-1] == pytest.approx(-0.25, abs=0.01)
    assert np.allclose(overlap_add(before, before, 1.0), before)
