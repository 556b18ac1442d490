"""The engine over captured steps: concurrent sessions of every kind get the output of their own streams."""

import numpy as np
import pytest
import torch

from neucodec_streaming import StreamConfig, load_codec
from neucodec_streaming.engine.engine import Engine
from neucodec_streaming.engine.results import FlushFinished, Output
from neucodec_streaming.engine.runner import Runner
from neucodec_streaming.engine.scheduler import Pool
from neucodec_streaming.errors import LostDeviceError
from tests.streaming.models import GOLDEN, recording

CONFIG = StreamConfig(chunk_frames=5, lookahead_frames=5, context_frames=20)
POOLS = {kind: Pool(kind, CONFIG) for kind in ("encode", "decode")}


@pytest.fixture
def engine(cuda: object) -> Engine:
    torch.set_num_threads(1)
    runner = Runner(load_codec(GOLDEN, device="cuda"), list(POOLS.values()), 4, (2,))
    runner.warm_up()
    return Engine(runner, gather_s=0.0)


@pytest.mark.slow
def test_sessions_of_every_kind_equal_streams(engine: Engine) -> None:
    pcm = recording(320 * 23)
    codec = load_codec(GOLDEN)
    encoder, decoder = codec.encoder_stream(CONFIG), codec.decoder_stream(CONFIG)
    tokens = np.concatenate([encoder.feed(pcm), encoder.flush()])
    audio = np.concatenate([decoder.feed(tokens), decoder.flush()])
    fed = {"encode": pcm, "decode": tokens, "roundtrip": pcm}
    sessions = {engine.open(kind, POOLS): kind for kind in fed}
    for session, kind in sessions.items():
        engine.feed(session, fed[kind], 0.0)
        engine.flush(session, 0.0)
    parts: dict[str, list[np.ndarray]] = {kind: [] for kind in fed}
    finished = 0
    while engine.wake_s() is not None:
        for result in engine.step(0.0):
            finished += isinstance(result, FlushFinished)
            if isinstance(result, Output):
                parts[sessions[result.session]].append(result.data.copy())
    assert finished == 3
    np.testing.assert_array_equal(np.concatenate(parts["encode"]), tokens)
    for kind in ("decode", "roundtrip"):
        assert np.abs(np.concatenate(parts[kind]) - audio).max() <= 1e-4 * np.abs(audio).max()


def test_a_permanent_device_error_is_raised(engine: Engine, cuda) -> None:
    if cuda is None:
        pytest.skip("a real device is not broken on purpose")
    session = engine.open("decode", POOLS)
    engine.feed(session, np.arange(20, dtype=np.uint16), 0.0)
    engine.step(1.0)
    cuda.fault = "an illegal memory access was encountered"
    with pytest.raises(LostDeviceError):
        engine.step(1.0)
