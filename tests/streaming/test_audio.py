"""PCM formats, checks, downmix and the streaming resampler."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neucodec_streaming.audio import check_audio, downmix, pcm_from_bytes, pcm_to_bytes
from neucodec_streaming.errors import AudioError, ConfigError
from neucodec_streaming.formats import PCM_FORMATS
from neucodec_streaming.resampler import Resampler, resample


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, samples).astype(np.float32)


def test_every_s16le_value_survives_a_round_trip():
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


def decoded(law: str) -> np.ndarray:
    return np.rint(pcm_from_bytes(bytes(range(256)), law) * 32768).astype(int)


def encoded(law: str, values: np.ndarray | list[int]) -> list[int]:
    return list(pcm_to_bytes((np.array(values) / 32768).astype(np.float32), law))


@pytest.mark.parametrize(
    ("law", "known"),
    [
        ("mulaw", {0xFF: 0, 0x7F: 0, 0x00: -32124, 0x80: 32124, 0xFE: 8, 0x7E: -8, 0xEF: 132, 0x8F: 16764, 0x9F: 8316}),
        ("alaw", {0xD5: 8, 0x55: -8, 0xAA: 32256, 0x2A: -32256, 0xD4: 24, 0xC5: 264, 0xF5: 528, 0x95: 2112}),
    ],
)
def test_g711_bytes_decode_to_the_values_of_the_standard(law, known):
    assert {code: decoded(law)[code] for code in known} == known


@pytest.mark.parametrize("law", ["mulaw", "alaw"])
def test_every_g711_value_survives_a_round_trip(law):
    back = encoded(law, decoded(law))
    assert [code for code in range(256) if back[code] != code] == ([0x7F] if law == "mulaw" else [])  # -0 becomes 0


@pytest.mark.parametrize(
    ("law", "edges"),
    [
        # 16-bit values of ITU-T G.711, tables 1a and 2a: (decision value, output below it, output above it)
        ("mulaw", [(4, 0, 8), (12, 8, 16), (124, 120, 132), (380, 372, 396), (16_252, 15_996, 16_764)]),
        ("alaw", [(16, 8, 24), (512, 504, 528), (1_024, 1_008, 1_056), (16_384, 16_128, 16_896)]),
    ],
)
def test_between_two_decision_values_of_g711_lies_one_output_value(law, edges):
    for edge, below, above in edges:
        codes = encoded(law, [edge - 1, edge, -edge, -edge - 1])
        assert decoded(law)[codes].tolist() == [below, above, -below, -above]


@pytest.mark.parametrize(("law", "loudest"), [("mulaw", 32_124), ("alaw", 32_256)])
def test_g711_clips_at_its_loudest_value(law, loudest):
    codes = np.frombuffer(pcm_to_bytes(np.float32([1.0, -1.0, 5.0, -5.0]), law), np.uint8)
    assert decoded(law)[codes].tolist() == [loudest, -loudest, loudest, -loudest]


def test_g711_agrees_with_the_standard_library_if_it_has_g711():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        audioop = pytest.importorskip("audioop")
    for law, read in (("mulaw", audioop.ulaw2lin), ("alaw", audioop.alaw2lin)):
        assert decoded(law).tolist() == np.frombuffer(read(bytes(range(256)), 2), np.int16).tolist()
    every = np.arange(-32768, 32768).astype("<i2")
    assert bytes(encoded("alaw", every)) == audioop.lin2alaw(every.tobytes(), 2)
    loud = every[every >= 0]  # negative ones it truncates away from zero, so that -1 becomes -8
    assert bytes(encoded("mulaw", loud)) == audioop.lin2ulaw(loud.tobytes(), 2)


@pytest.mark.parametrize(
    ("pcm_format", "sample"), [(name, form.sample_bytes) for name, form in PCM_FORMATS.items() if form.sample_bytes > 1]
)
def test_partial_samples_are_named(pcm_format, sample):
    with pytest.raises(AudioError, match=rf"{sample * 3 + 1} bytes are not a whole number of {pcm_format} samples"):
        pcm_from_bytes(bytes(sample * 3 + 1), pcm_format)
    assert pcm_from_bytes(b"", pcm_format).size == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_non_finite_sample_is_named_with_its_position(value):
    audio = np.zeros(10, np.float32)
    audio[7] = value
    with pytest.raises(AudioError, match=f"sample 7 of 10 is {value}"):
        pcm_from_bytes(audio.tobytes(), "f32le")
    with pytest.raises(AudioError, match="sample 7"):
        pcm_to_bytes(audio)


@pytest.mark.parametrize(
    ("audio", "says"),
    [
        (["0"], "list"),
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
    with pytest.raises(ConfigError, match="'mp3' is unknown: choose one of s16le, f32le, mulaw, alaw"):
        pcm_from_bytes(b"", "mp3")


def test_downmix_is_the_mean_over_channels():
    left, right = noise(100, 1), noise(100, 2)
    assert np.allclose(downmix(np.stack([left, right], axis=1)), (left + right) / 2)
    assert np.array_equal(downmix(left), left)
    assert np.array_equal(downmix(left[:, None]), left)
    with pytest.raises(AudioError, match=r"\(3, 0\)"):
        downmix(np.zeros((3, 0), np.float32))


RATES = [
    (8_000, 16_000),
    (48_000, 16_000),
    (44_100, 16_000),
    (24_000, 16_000),
    (24_000, 8_000),
    (24_000, 48_000),
    (24_000, 32_000),
    (24_000, 22_050),
    (11_025, 16_000),
    (16_000, 15_950),
]


@pytest.mark.parametrize("rates", [*RATES, (16_000, 16_000)])
@settings(max_examples=20, deadline=None, derandomize=True)
@given(cuts=st.lists(st.integers(0, 4_000), max_size=12))
def test_any_partition_of_the_input_gives_the_same_output(rates, cuts):
    audio = noise(4_000)
    resampler = Resampler(*rates)
    pieces = np.split(audio, sorted(cuts))
    output = np.concatenate([*(resampler.feed(piece) for piece in pieces), resampler.flush()])
    assert np.array_equal(output, resample(audio, *rates))


@pytest.mark.parametrize("rates", RATES)
def test_output_comes_at_the_predicted_time_and_is_complete_after_a_flush(rates):
    audio, resampler = noise(3_001), Resampler(*rates)
    packets = [resampler.feed(audio[i : i + 1]) for i in range(audio.size)]
    given = np.cumsum([packet.size for packet in packets])
    for count in range(1, given[-1]):
        assert given[resampler.needed(count) - 1] >= count, "no later than it is said"
        assert given[resampler.needed(count) - 2] < count, "and no earlier"
    output = np.concatenate([*packets, resampler.flush()])
    assert np.array_equal(output, resample(audio, *rates))
    assert output.size == audio.size * rates[1] // rates[0]


@pytest.mark.parametrize("rates", RATES)
def test_the_stated_delay_is_a_tight_upper_bound(rates):
    resampler = Resampler(*rates)
    given, longest_ms = 0, 0.0
    for fed in range(1, 3_001):
        given += resampler.feed(np.zeros(1, np.float32)).size
        longest_ms = max(longest_ms, fed * 1000 / rates[0] - given * 1000 / rates[1])
    sample_ms = 1000 / rates[0] + 1000 / rates[1]
    assert resampler.delay_ms - sample_ms <= longest_ms <= resampler.delay_ms
    assert resampler.delay_ms <= 32 * 1000 / min(rates) + sample_ms


@pytest.mark.parametrize("rates", RATES)
def test_an_impulse_stays_at_its_time(rates):
    impulse = np.zeros(rates[0] // 10, np.float32)
    impulse[rates[0] // 20] = 1.0
    output = resample(impulse, *rates).astype(np.float64)
    centre_s = (np.arange(output.size) * output).sum() / output.sum() / rates[1]
    assert centre_s == pytest.approx(rates[0] // 20 / rates[0], abs=2e-6)


@pytest.mark.parametrize("rates", RATES)
@pytest.mark.parametrize("frames", [0, 1, 7])
def test_whole_frames_become_whole_frames(rates, frames):
    rates = tuple(rate - rate % 50 for rate in rates)
    hops = [rate // 50 for rate in rates]
    assert resample(noise(frames * hops[0]), *rates).size == frames * hops[1]
    assert resample(noise((frames + 1) * hops[0] - 1), *rates).size // hops[1] == frames, "the remainder makes none"


@pytest.mark.parametrize("rates", [(8_000, 16_000), (24_000, 8_000), (48_000, 16_000), (24_000, 44_100)])
def test_the_speech_band_passes_without_aliasing(rates):
    half = min(rates) / 2
    for hertz, least, most in ((0.1 * half, 0.999, 1.001), (0.85 * half, 0.999, 1.001), (1.02 * half, 0.0, 0.001)):
        if hertz < rates[0] / 2:
            tone = np.sin(2 * np.pi * hertz * np.arange(rates[0] // 2) / rates[0]).astype(np.float32)
            middle = resample(tone, *rates)[rates[1] // 10 : -rates[1] // 10]
            assert least <= np.sqrt(2 * np.mean(middle**2)) <= most


@pytest.mark.parametrize("rates", [(8_000, 16_000), (24_000, 8_000), (24_000, 16_000), (44_100, 16_000)])
def test_a_long_recording_in_one_piece_equals_one_in_packets(rates):
    audio, resampler = noise(60_000), Resampler(*rates)
    packets = [resampler.feed(packet) for packet in np.split(audio, [1, 2, 5, 100, 20_000, 59_999])]
    assert np.array_equal(np.concatenate([*packets, resampler.flush()]), resample(audio, *rates))


def test_equal_rates_pass_through_without_delay():
    audio, resampler = noise(100), Resampler(16_000, 16_000)
    assert np.array_equal(resampler.feed(audio), audio)
    assert (resampler.flush().size, resampler.delay_ms, resampler.needed(100)) == (0, 0.0, 100)


def test_clear_drops_buffered_samples():
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
def test_an_invalid_rate_is_named(rate):
    with pytest.raises(ConfigError, match="rate is"):
        Resampler(rate, 16_000)
    with pytest.raises(ConfigError, match="rate is"):
        Resampler(16_000, rate)
