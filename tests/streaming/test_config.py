"""Valid configurations, and the times that follow from them."""

import numpy as np
import pytest

from neucodec_streaming import ConfigError, StreamConfig
from neucodec_streaming.config import roundtrip_latency_ms


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"chunk_frames": 0}, "chunk_frames is 0"),
        ({"chunk_frames": 2.5}, "chunk_frames is 2.5"),
        ({"lookahead_frames": -1}, "lookahead_frames is -1"),
        ({"context_frames": "250"}, "context_frames is '250'"),
        ({"prior_weight": -1.0}, "prior_weight is -1.0"),
        ({"prior_weight": float("inf")}, "prior_weight is inf"),
    ],
)
def test_an_invalid_field_is_refused_by_name_and_value(fields: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        StreamConfig(**fields)


def test_integers_of_numpy_are_valid_and_become_plain_ones() -> None:
    config = StreamConfig(np.int64(3), np.uint8(0), np.int32(7))
    assert config == StreamConfig(3, 0, 7) and repr(config) == repr(StreamConfig(3, 0, 7))


def test_the_default_waits_215_ms_to_encode_and_200_to_decode() -> None:
    assert StreamConfig().encode_latency_ms == 215
    assert StreamConfig().decode_latency_ms == 200


def test_without_lookahead_the_synthesis_lag_counts() -> None:
    assert StreamConfig(1, 0).decode_latency_ms == 60
    assert StreamConfig(1, 1).decode_latency_ms == 60
    assert StreamConfig(1, 2).decode_latency_ms == 60


@pytest.mark.parametrize("encode", [(1, 0), (2, 3), (5, 5), (4, 1)])
@pytest.mark.parametrize("decode", [(1, 0), (3, 1), (5, 5), (4, 7)])
def test_the_roundtrip_latency_is_that_of_the_schedule(encode: tuple[int, int], decode: tuple[int, int]) -> None:
    first, second = StreamConfig(*encode), StreamConfig(*decode)
    tokens = given = 0
    longest = 0.0
    for ms in range(0, 6000, 5):  # audio arrives; all that is ready is computed
        samples = ms * 16
        while samples >= (tokens + first.window_frames) * 320 + 240:
            tokens += first.chunk_frames
        hops = max(0, (tokens - second.lookahead_frames) // second.chunk_frames * second.chunk_frames)
        hops = max(0, hops - second.synthesis_lag_frames)
        if hops > given:
            longest = max(longest, ms - given * 20)
            given = hops
    assert roundtrip_latency_ms(first, second) == longest
