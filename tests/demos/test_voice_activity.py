"""Starts and ends of real speech are reported once, at the right time, for any packet sizes."""

import numpy as np
import pytest

from demos.demo import RECORDING
from demos.voice_activity import WINDOW_SAMPLES, VoiceActivity
from neucodec_streaming.client.files import read_audio
from neucodec_streaming.config import INPUT_RATE

SILENCE = np.zeros(INPUT_RATE, np.float32)


@pytest.fixture(scope="module")
def turns() -> np.ndarray:
    """A second of silence, two of speech, and both again."""
    speech = read_audio(RECORDING, INPUT_RATE)[: 2 * INPUT_RATE]
    return np.concatenate([SILENCE, speech, SILENCE, speech, SILENCE])


def told(audio: np.ndarray, packet: int) -> list[tuple[str, float]]:
    activity = VoiceActivity()
    starts = range(0, audio.size, packet)
    return [
        (event, min(start + packet, audio.size) / INPUT_RATE)
        for start in starts
        for event in activity.feed(audio[start : start + packet])
    ]


def test_each_turn_begins_and_ends_once(turns):
    events = told(turns, WINDOW_SAMPLES)
    assert [event for event, _ in events] == ["start", "end", "start", "end"]
    for (_, second), (at_least, at_most) in zip(events, [(1, 1.6), (3, 3.8), (4, 4.6), (6, 6.8)], strict=True):
        assert at_least <= second <= at_most


def test_packet_sizes_do_not_change_the_result(turns):
    whole = told(turns, WINDOW_SAMPLES)
    for packet in (160, 333, 5_000):
        pieces = told(turns, packet)
        assert [event for event, _ in pieces] == [event for event, _ in whole]
        assert all(0 <= later - earlier < 0.35 for (_, later), (_, earlier) in zip(pieces, whole, strict=True))


def test_noise_is_not_detected_as_speech():
    noise = np.random.default_rng(0).normal(0, 0.05, 3 * INPUT_RATE).astype(np.float32)
    assert told(noise, WINDOW_SAMPLES) == []
