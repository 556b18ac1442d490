import random

import numpy as np
import pytest

from server.intake import Intake
from streaming.config import StreamConfig
from streaming.lane import DecoderLane, EncoderLane
from streaming.protocol.messages import INPUT_AUDIO, TOKENS, StreamFormat

FLOATS = StreamFormat("audio", "f32le", 16_000)


@pytest.mark.parametrize("shape", [(5, 5), (2, 3), (1, 0)])
@pytest.mark.parametrize("format", [INPUT_AUDIO, FLOATS, TOKENS], ids=lambda format: format.format)
def test_input_goes_on_as_soon_as_it_completes_a_window_and_nothing_is_lost(format, shape):
    config = StreamConfig(*shape)
    rng = random.Random(str(shape) + format.format)
    for _ in range(10):
        intake = Intake(format, config)
        lane = DecoderLane(config) if format is TOKENS else EncoderLane(config)
        sent, passed = b"", b""
        for _ in range(60):
            packet = rng.randbytes(rng.choice((0, 1, 7, 320, 5_000)) * format.unit_bytes)
            sent += packet
            passed += intake.put(packet)
            lane.push(np.zeros(len(packet) // format.unit_bytes, lane.dtype))
            held = (len(sent) - len(passed)) // format.unit_bytes
            assert lane.steps_ready == _steps(lane, lane.delay - held), "what is held completes no window"
            assert held == 0 or format is not FLOATS
        passed += intake.end()
        assert passed == sent


def _steps(lane, units: int) -> int:
    without = type(lane)(lane.config)
    without.push(np.zeros(units, lane.dtype))
    return without.steps_ready


def test_a_cleared_intake_is_as_new():
    intake = Intake(TOKENS, StreamConfig(2, 3))
    assert intake.put(bytes(8)) == b""
    intake.clear()
    assert intake.put(bytes(8)) == b"" and intake.put(b"ab") == bytes(8) + b"ab"
    assert intake.put(bytes(2)) == b"" and intake.put(bytes(2)) == bytes(4)
