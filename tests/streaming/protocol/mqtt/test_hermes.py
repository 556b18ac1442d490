"""WAV of satellites: other channels and widths are converted, the rest is refused."""

import io
import wave

import numpy as np
import pytest

from neucodec_streaming.errors import AudioError
from neucodec_streaming.protocol.messages import INPUT_AUDIO
from neucodec_streaming.protocol.mqtt.hermes import samples_of, wav_of

SAMPLES = np.array([0, 256, -256, 32512, -32768], "<i2")


def wav(samples: bytes, channels: int = 1, width: int = 2, rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(width)
        writer.setframerate(rate)
        writer.writeframes(samples)
    return file.getvalue()


def test_written_wav_is_read_back():
    assert samples_of(wav_of(SAMPLES.tobytes(), INPUT_AUDIO), INPUT_AUDIO) == SAMPLES.tobytes()


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_other_widths_keep_their_upper_16_bits(width):
    wide = SAMPLES.astype("<i4") << 16
    samples = (SAMPLES // 256 + 128).astype("u1") if width == 1 else wide.view("u1").reshape(-1, 4)[:, 4 - width :]
    assert samples_of(wav(samples.tobytes(), width=width), INPUT_AUDIO) == SAMPLES.tobytes()


def test_channels_become_their_mean():
    frames = np.stack([SAMPLES, SAMPLES[::-1]], axis=1)
    expected = (frames.astype(int).sum(axis=1) // 2).astype("<i2")
    assert samples_of(wav(frames.tobytes(), channels=2), INPUT_AUDIO) == expected.tobytes()


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (wav(SAMPLES.tobytes(), rate=44_100), "44100 Hz: the session expects 1 to 8 at 16000"),
        (wav(SAMPLES.tobytes() * 9, channels=9), "9 channels"),
        (b"RIFF", "not a WAV file"),
        (b"", "not a WAV file"),
    ],
)
def test_unconvertible_audio_is_refused(payload, says):
    with pytest.raises(AudioError, match=says):
        samples_of(payload, INPUT_AUDIO)


def test_a_truncated_file_gives_the_samples_it_contains():
    frames = np.stack([SAMPLES, SAMPLES], axis=1).tobytes()
    assert samples_of(wav(frames, channels=2)[:-3], INPUT_AUDIO) == SAMPLES[:-1].tobytes()
