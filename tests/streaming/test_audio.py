"""PCM formats, checks, downmix and the streaming resampler."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.audio import PCM_FORMATS, Resampler, check_audio, downmix, pcm_from_bytes, pcm_to_bytes, resample
from streaming.errors import AudioError, ConfigError


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, samples).astype(np.float32)


def test_every_s16le_value_survives_the_way_there_and_back():
    payload = np.arange(-32768, 32768).astype("<i2").tobytes()
    audio = pcm_from_bytes(payload)
    assert (audio.min(), audio.max()) == (-1.0, np.float32(32767 / 32768))
    assert pcm_to_bytes(audio) == payload


def test_f32le_carries_float32_exactly():
    audio = noise(1000)
    assert np.array_equal(pcm_from_bytes(pcm_to_bytes(audio, "f32le"), "f32le"), audio)


def test_s16le_clips_at_full_scale_and_rounds_to_the_nearest():
    audio = np.float32([2.0, -2.0, 1.0, 1.4 / 32768, 1.6 / 32768])
    assert np.frombuffer(pcm_to_bytes(audio), "<i2").tolist() == [32767, -32768, 32767, 1, 2]


@pytest.mark.parametrize(("pcm_format", "sample"), [(name, dtype.itemsize) for name, dtype in PCM_FORMATS.items()])
def test_bytes_that_are_no_whole_samples_are_named(pcm_format, sample):
    with pytest.raises(AudioError, match=rf"{sample * 3 + 1} bytes are no whole number of {pcm_format} samples"):
        pcm_from_bytes(bytes(sample * 3 + 1), pcm_format)
    assert pcm_from_bytes(b"", pcm_format).size == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_not_finite_is_named_with_its_place(value):
    audio = np.zeros(10, np.float32)
    audio[7] = value
    with pytest.raises(AudioError, match=f"sample 7 of 10 is {value}"):
        pcm_from_bytes(audio.tobytes(), "f32le")
    with pytest.raises(AudioError, match="sample 7"):
        pcm_to_bytes(audio)


@pytest.mark.parametrize(
    ("audio", "says"),
    [
        ([0.0], "list"),
        (np.zeros(3), "float64"),
        (np.zeros(3, np.int16), "int16"),
        (np.zeros((3, 2), np.float32), r"\(3, 2\)"),
        (np.zeros((), np.float32), r"\(\)"),
    ],
)
def test_audio_of_another_type_or_shape_is_named(audio, says):
    with pytest.raises(AudioError, match=says):
        check_audio(audio)


def test_an_unknown_format_names_the_known_ones():
    with pytest.raises(ConfigError, match="'mp3' is unknown: give one of s16le, f32le"):
        pcm_from_bytes(b"", "mp3")


def test_downmix_is_the_mean_over_channels():
    left, right = noise(100, 1), noise(100, 2)
    assert np.allclose(downmix(np.stack([left, right], axis=1)), (left + right) / 2)
    assert np.array_equal(downmix(left), left)
    assert np.array_equal(downmix(left[:, None]), left)
    with pytest.raises(AudioError, match=r"\(3, 0\)"):
        downmix(np.zeros((3, 0), np.float32))


@pytest.mark.parametrize(
    "rates", [(44_100, 16_000), (8_000, 16_000), (24_000, 16_000), (24_000, 48_000), (16_000, 16_000)]
)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(cuts=st.lists(st.integers(0, 4_000), max_size=12))
def test_any_partition_of_the_input_gives_the_same_output(rates, cuts):
    audio = noise(4_000)
    resampler = Resampler(*rates)
    pieces = np.split(audio, sorted(cuts))
    output = np.concatenate([*(resampler.feed(piece) for piece in pieces), resampler.flush()])
    assert np.array_equal(output, resample(audio, *rates))


@pytest.mark.parametrize("rates", [(44_100, 16_000), (8_000, 24_000), (24_000, 16_000), (48_000, 16_000)])
def test_a_flush_brings_the_rounded_length_and_a_new_stream(rates):
    audio, resampler = noise(10_001), Resampler(*rates)
    first = np.concatenate([resampler.feed(audio), resampler.flush()])
    assert abs(first.size - 10_001 * rates[1] / rates[0]) <= 1
    assert resampler.delay_samples == 0
    assert np.array_equal(resampler.feed(audio, last=True), first)


def test_delay_is_what_the_output_still_lacks():
    resampler = Resampler(48_000, 16_000)
    output = resampler.feed(noise(4_800))
    assert resampler.delay_samples == pytest.approx(1_600 - output.size, abs=1)


def test_clear_drops_what_is_inside():
    audio, resampler = noise(5_000), Resampler(48_000, 16_000)
    resampler.feed(noise(3_000, 5))
    resampler.clear()
    assert np.array_equal(resampler.feed(audio, last=True), resample(audio, 48_000, 16_000))


def test_a_tone_keeps_its_frequency_and_loudness():
    seconds = np.arange(44_100) / 44_100
    tone = (0.5 * np.sin(2 * np.pi * 1_000 * seconds)).astype(np.float32)
    output = resample(tone, 44_100, 16_000)
    wanted = 0.5 * np.sin(2 * np.pi * 1_000 * np.arange(output.size) / 16_000)
    assert np.abs(output - wanted)[400:-400].max() < 1e-3


@pytest.mark.parametrize("rate", [0, -1, 3_999, 1_000_000, 16_000.0, True, "16000"])
def test_a_rate_that_cannot_be_is_named(rate):
    with pytest.raises(ConfigError, match="rate is"):
        Resampler(rate, 16_000)
    with pytest.raises(ConfigError, match="rate is"):
        Resampler(16_000, rate)


def test_bad_audio_leaves_the_resampler_as_it_was():
    audio, resampler = noise(5_000), Resampler(48_000, 16_000)
    start = resampler.feed(audio[:2_000])
    with pytest.raises(AudioError):
        resampler.feed(np.full(10, np.nan, np.float32))
    assert np.array_equal(
        np.concatenate([start, resampler.feed(audio[2_000:], last=True)]), resample(audio, 48_000, 16_000)
    )
