"""The input that each output waits for: the behaviour of the streams' windowers, for configurations of every kind."""

import numpy as np
import pytest

from neucodec_streaming.client.latency import ResponseTimes, units_needed
from neucodec_streaming.config import INPUT_HOP, OUTPUT_HOP, StreamConfig
from neucodec_streaming.protocol.messages import INPUT_AUDIO, OUTPUT_AUDIO, TOKENS, Ready, StreamFormat
from neucodec_streaming.windows import DecoderWindower, EncoderWindower

CONFIGS = [StreamConfig(2, 3), StreamConfig(5, 5), StreamConfig(5, 15), StreamConfig(4, 1), StreamConfig(1, 0)]


def ready(config: StreamConfig, source: StreamFormat, sink: StreamFormat) -> Ready:
    return Ready("s", "m", "p", config.chunk_frames, config.lookahead_frames, 0.0, source, sink)


def steps(lane: EncoderWindower | DecoderWindower, units: int) -> int:
    """Steps that this much input allows from the start of an utterance."""
    lane.append(np.zeros(units, lane.dtype))
    return sum(1 for _ in iter(lane.take, None))


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_chunk_waits_for_exactly_the_input_that_its_step_needs(config):
    for chunks in (1, 2, 7):
        samples = units_needed(ready(config, INPUT_AUDIO, TOKENS), chunks * config.chunk_frames)
        assert steps(EncoderWindower(config), samples) == chunks > steps(EncoderWindower(config), samples - 1)
        frames = chunks * config.chunk_frames - config.synthesis_lag_frames
        if frames > 0:
            tokens = units_needed(ready(config, TOKENS, OUTPUT_AUDIO), frames * OUTPUT_HOP)
            assert steps(DecoderWindower(config), tokens) == chunks > steps(DecoderWindower(config), tokens - 1)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_roundtrip_audio_waits_for_the_tokens_of_its_decoding_step(config):
    tokens = units_needed(ready(config, TOKENS, OUTPUT_AUDIO), 10 * OUTPUT_HOP)
    there = ready(config, INPUT_AUDIO, TOKENS)
    assert units_needed(ready(config, INPUT_AUDIO, OUTPUT_AUDIO), 10 * OUTPUT_HOP) == units_needed(there, tokens)


def test_other_input_rates_wait_for_the_same_duration():
    config = StreamConfig(5, 5)
    telephone = StreamFormat("audio", "mulaw", 8_000)
    assert 2 * units_needed(ready(config, telephone, TOKENS), 5) == units_needed(ready(config, INPUT_AUDIO, TOKENS), 5)


def test_response_times_count_from_the_packet_that_completed_the_input():
    times = ResponseTimes(ready(StreamConfig(2, 1), INPUT_AUDIO, TOKENS))
    for packet in range(1, 6):
        times.sent(packet * INPUT_HOP, now_s=float(packet))
    times.received(2, now_s=4.5)  # needs 3 frames and 240 samples: packet 4
    times.received(4, now_s=9.0)  # needs packet 6, which was never sent: came by a flush
    assert times.milliseconds == [500.0]
    assert times.as_dict() == {"response_ms": {"p50": 500.0, "p99": 500.0, "max": 500.0}}
    assert times.recent_ms == 500.0


def test_response_times_of_a_new_session_do_not_count_from_the_old_one():
    times = ResponseTimes(ready(StreamConfig(2, 1), INPUT_AUDIO, TOKENS))
    times.sent(100 * INPUT_HOP, now_s=1.0)
    for packet in range(1, 6):
        times.sent(packet * INPUT_HOP, now_s=60.0 + packet)
    times.received(2, now_s=64.5)
    assert times.milliseconds == [500.0]
