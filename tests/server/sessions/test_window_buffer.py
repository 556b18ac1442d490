import random

import numpy as np
import pytest

from neucodec_streaming.config import INPUT_RATE, StreamConfig
from neucodec_streaming.protocol.messages import INPUT_AUDIO, TOKENS, StreamFormat
from neucodec_streaming.resampler import Resampler
from neucodec_streaming.server.sessions.window_buffer import WindowBuffer
from neucodec_streaming.windows import DecoderWindower, EncoderWindower

FLOATS = StreamFormat("audio", "f32le", 16_000)
TELEPHONE = StreamFormat("audio", "mulaw", 8_000)
RECORDER = StreamFormat("audio", "s16le", 44_100)
FAST_FLOATS = StreamFormat("audio", "f32le", 48_000)


class Taker:
    """Counts the steps that a worker can compute from some input."""

    def __init__(self, format: StreamFormat, config: StreamConfig) -> None:
        self._format = format
        self._lane = DecoderWindower(config) if format is TOKENS else EncoderWindower(config)
        self._resampler = Resampler(format.rate, INPUT_RATE) if format is not TOKENS else None
        self._steps = 0

    def take(self, payload: bytes) -> int:
        """Returns the steps that all payload so far allows."""
        units = np.zeros(len(payload) // self._format.unit_bytes, self._lane.dtype)
        self._lane.push(units if self._resampler is None else self._resampler.feed(units))
        self._steps += sum(1 for _ in iter(self._lane.take, None))
        return self._steps


@pytest.mark.parametrize("shape", [(5, 5), (2, 3), (1, 0)])
@pytest.mark.parametrize(
    "format",
    [INPUT_AUDIO, FLOATS, TELEPHONE, RECORDER, FAST_FLOATS, TOKENS],
    ids=lambda format: f"{format.format}-{format.rate}",
)
def test_input_is_passed_on_once_it_completes_a_window(format, shape):
    config = StreamConfig(*shape)
    rng = random.Random(str(shape) + format.format)
    for _ in range(10):
        window_buffer, everything, passed_on = (
            WindowBuffer(format, config),
            Taker(format, config),
            Taker(format, config),
        )
        sent, passed, steps = b"", b"", 0
        for _ in range(60):
            packet = rng.randbytes(rng.choice((0, 1, 7, 320, 5_000)) * format.unit_bytes)
            sent += packet
            out = window_buffer.put(packet)
            passed += out
            before, steps = steps, passed_on.take(out)
            assert steps == everything.take(packet), "what is held completes no window"
            if format.format == "f32le":
                assert passed == sent, "floats are not held"
            elif out:
                assert steps > before, "the thread is not woken for less"
        passed += window_buffer.end()
        assert passed == sent


def test_a_cleared_buffer_equals_a_new_one():
    window_buffer = WindowBuffer(TOKENS, StreamConfig(2, 3))
    assert window_buffer.put(bytes(8)) == b""
    window_buffer.clear()
    assert window_buffer.put(bytes(8)) == b"" and window_buffer.put(b"ab") == bytes(8) + b"ab"
    assert window_buffer.put(bytes(2)) == b"" and window_buffer.put(bytes(2)) == bytes(4)
