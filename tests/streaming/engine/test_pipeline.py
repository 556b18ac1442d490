"""With two steps in flight sessions get the same output; results of cleared or closed sessions are dropped."""

import numpy as np
import pytest

from neucodec_streaming.engine.engine import POLL_S, Engine
from neucodec_streaming.engine.results import Failed, FlushFinished, Output
from neucodec_streaming.errors import LostDeviceError
from tests.streaming.engine.fake import POOLS, FakeRunner, audio_of, speech, tokens_of


def pipeline(depth: int = 2) -> tuple[FakeRunner, Engine]:
    runner = FakeRunner()
    runner.depth = depth
    return runner, Engine(runner, gather_s=0.0)


def results_of(engine: Engine, now_s: float = 0.0) -> list:
    found = []
    while engine.wake_s() is not None:
        found += engine.step(now_s)
    return found


def outputs(results: list, session: int) -> np.ndarray:
    return np.concatenate(
        [result.data for result in results if isinstance(result, Output) and result.session == session]
    )


@pytest.mark.parametrize("depth", [1, 2])
def test_sessions_get_the_same_output_however_many_steps_are_in_flight(depth: int) -> None:
    _, engine = pipeline(depth)
    levels = [list(range(1 + number, 24 + number)) for number in range(3)]
    sessions = [engine.open("roundtrip", POOLS) for _ in levels]
    for session, part in zip(sessions, levels, strict=True):
        engine.feed(session, speech(*part), 0.0)
        engine.flush(session, 0.0)
    results = results_of(engine)
    for session, part in zip(sessions, levels, strict=True):
        np.testing.assert_array_equal(outputs(results, session), audio_of(tokens_of(part)))
    assert sum(isinstance(result, FlushFinished) for result in results) == 3


def test_steps_are_launched_while_the_device_computes_and_delivered_once_it_is_done() -> None:
    runner, engine = pipeline()
    runner.is_computing = True
    one, two, three = (engine.open(kind, POOLS) for kind in ("encode", "decode", "encode"))
    engine.feed(one, speech(*range(11)), 0.0)
    assert engine.step(1.0) == [] and len(runner.steps) == 1
    engine.feed(two, np.arange(10, dtype=np.uint16), 1.0)
    assert engine.wake_s() == 0.0 + 1.0, "there is room for another step"
    assert engine.step(1.0) == [] and len(runner.steps) == 2
    engine.feed(three, speech(*range(11)), 1.0)
    assert engine.step(1.0) == [] and len(runner.steps) == 2, "no more than the depth"
    assert engine.wake_s() == 1.0 + POLL_S
    runner.is_computing = False
    assert engine.wake_s() == float("-inf")
    delivered = [engine.step(1.0) for _ in range(3)]
    assert [[result.session for result in results] for results in delivered] == [[one], [two], [three]]
    assert engine.wake_s() is None


@pytest.mark.parametrize("command", ["clear", "close"])
def test_steps_in_flight_of_cleared_or_closed_sessions_are_dropped(command: str) -> None:
    runner, engine = pipeline()
    runner.is_computing = True
    session = engine.open("encode", POOLS)
    engine.feed(session, speech(*range(11)), 0.0)
    assert engine.step(1.0) == []
    if command == "clear":
        engine.clear(session, 1.0)
    else:
        engine.close(session)
        session = engine.open("encode", POOLS)
    engine.feed(session, speech(*range(50, 61)), 1.0)
    engine.flush(session, 1.0)
    runner.is_computing = False
    results = results_of(engine, 2.0)
    np.testing.assert_array_equal(outputs(results, session), tokens_of(list(range(50, 61))))


def test_a_snapshot_waits_for_the_step_in_flight() -> None:
    runner, engine = pipeline()
    runner.is_computing = True
    session = engine.open("encode", POOLS)
    engine.feed(session, speech(*range(11)), 0.0)
    engine.step(1.0)
    snapshot = engine.snapshot(session)
    runner.is_computing = False
    (first,) = engine.step(1.0)
    other = engine.restore("encode", POOLS, snapshot, 1.0)
    engine.flush(other, 1.0)
    rest = outputs(results_of(engine, 1.0), other)
    np.testing.assert_array_equal(np.concatenate([first.data, rest]), tokens_of(list(range(11))))


def test_a_permanent_device_failure_is_not_blamed_on_the_batch() -> None:
    runner, engine = pipeline(1)
    session = engine.open("encode", POOLS)
    for alive in (True, False):
        runner.broken, runner.alive = RuntimeError("CUDA error: an illegal memory access was encountered"), alive
        session = engine.open("encode", POOLS)
        engine.feed(session, speech(*range(11)), 0.0)
        if alive:
            (failed,) = engine.step(1.0)
            assert isinstance(failed, Failed) and failed.session == session
        else:
            with pytest.raises(LostDeviceError):
                engine.step(1.0)
