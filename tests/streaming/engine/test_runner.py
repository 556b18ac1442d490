"""The runner over the golden model."""

import weakref
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch

from neucodec_streaming.codec import load_codec
from neucodec_streaming.config import START_FRAMES, StreamConfig
from neucodec_streaming.engine.runner import Runner
from neucodec_streaming.engine.scheduler import Pool

GOLDEN = Path(__file__).parent.parent.parent / "data" / "neucodec-mini"
CONFIG = StreamConfig(chunk_frames=2, lookahead_frames=2, context_frames=20)
POOLS = [Pool("encode", CONFIG), Pool("decode", CONFIG)]
SLOTS = 4


@pytest.fixture(scope="module")
def codec():
    torch.set_num_threads(1)
    return load_codec(GOLDEN)


@pytest.fixture
def runner(codec):
    return Runner(codec, POOLS, SLOTS, (2, 4))


def stream(pool: Pool, seed: int, runner: Runner, frames: int = 29) -> list:
    """Windows of one stream: a few in the steady state, and the ending."""
    windower = runner.windower(pool)
    rng = np.random.default_rng(seed)
    if pool.kind == "encode":
        windower.push(rng.normal(0, 0.1, 320 * frames).astype(np.float32))
    else:
        windower.push(rng.integers(0, 65_536, frames).astype(np.uint16))
    windows = []
    while (window := windower.take()) is not None:
        windows.append(window)
    return [*windows, windower.take_last()]


def alone(runner: Runner, pool: Pool, slot: int, windows: list, size: int) -> np.ndarray:
    return np.stack([runner.step(pool, [slot], [window], size)[0] for window in windows])


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool.kind)
def test_a_rows_bits_do_not_depend_on_other_rows(runner, pool):
    mine, other = stream(pool, 1, runner), stream(pool, 2, runner)
    wanted = alone(runner, pool, 0, mine, 4)
    runner.reset(pool, 0)
    rows = [runner.step(pool, [3, 0, 1], [theirs, own, theirs], 4)[1] for own, theirs in zip(mine, other, strict=True)]
    np.testing.assert_array_equal(np.stack(rows), wanted)


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool.kind)
def test_spare_rows_change_no_session(runner, pool):
    mine, other = stream(pool, 1, runner), stream(pool, 2, runner)
    wanted = alone(runner, pool, 0, mine, 2)
    runner.reset(pool, 0)
    got = []
    for own, theirs in zip(mine, other, strict=True):
        got.append(runner.step(pool, [0], [own], 2)[0])
        runner.step(pool, [1], [theirs], 4)  # three spare rows
    np.testing.assert_array_equal(np.stack(got), wanted)


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool.kind)
def test_a_slot_is_clean_after_warm_up_and_after_reset(codec, pool):
    runner = Runner(codec, POOLS, SLOTS, (2,))
    windows = stream(pool, 3, runner)
    wanted = alone(runner, pool, 0, windows, 2)
    runner.reset(pool, 0)
    np.testing.assert_array_equal(alone(runner, pool, 0, windows, 2), wanted)
    runner.warm_up()
    np.testing.assert_array_equal(alone(runner, pool, 2, windows, 2), wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool.kind)
def test_a_recorded_step_equals_the_eager_one_bit_for_bit(pool, dtype, caplog):
    codec = load_codec(GOLDEN, dtype=dtype)
    eager, recorded = (Runner(codec, [pool], SLOTS, (2, 4)) for _ in range(2))
    recorded.warm_up()
    assert not caplog.records, "every step could be recorded"
    rng = np.random.default_rng(0)
    streams = [deque(stream(pool, seed, eager)) for seed in range(SLOTS)]
    count, first_steady, seen = len(streams[0]), -(-START_FRAMES // CONFIG.chunk_frames), set()
    while any(streams):
        going = [slot for slot in range(SLOTS) if streams[slot]]
        slots = rng.permutation(going)[: rng.integers(1, len(going) + 1)].tolist()
        steady = [slot for slot in slots if first_steady <= count - len(streams[slot]) < count - 1]
        is_steady = len(steady) == len(slots) or len(steady) > 2
        slots = steady if is_steady else slots[:2]
        windows = [streams[slot].popleft() for slot in slots]
        size = 2 if len(slots) <= 2 else 4
        seen.add((size, set(slots) <= set(steady)))
        got, wanted = (runner.step(pool, slots, windows, size) for runner in (recorded, eager))
        np.testing.assert_array_equal(got, wanted)
    assert seen == {(2, False), (2, True), (4, True)}


def test_a_replica_of_a_runner_does_not_keep_its_states_alive(codec):
    runner = Runner(codec, POOLS[:1], SLOTS, (2,))
    runner.warm_up()
    replicate, state = runner.replicate(), weakref.ref(runner._states[POOLS[0]])
    del runner
    assert state() is None
    assert len(alone(replicate, POOLS[0], 0, stream(POOLS[0], 1, replicate), 2))


@pytest.mark.slow
def test_a_replayed_step_equals_the_eager_one_and_synchronises_once(cuda):
    codec = load_codec(GOLDEN, device="cuda")
    eager, replaying = (Runner(codec, POOLS, SLOTS, (2, 4)) for _ in range(2))
    replaying.warm_up()
    assert (eager.max_edges, eager.depth) == (None, 1)
    assert (replaying.max_edges, replaying.depth) == (4, 2)
    for pool in POOLS:
        mine, other = stream(pool, 1, eager, 13), stream(pool, 2, eager, 13)
        for own, theirs in zip(mine, other, strict=True):
            for slots, windows, size in (([0], [own], 2), ([3, 1], [theirs, own], 4)):
                wanted = eager.step(pool, slots, windows, size)
                if cuda is not None:
                    cuda.syncs.clear()
                got = replaying.step(pool, slots, windows, size)
                assert cuda is None or cuda.syncs == ["event.synchronize"]
                for row, window in enumerate(windows):
                    np.testing.assert_array_equal(got[row][window.output], wanted[row][window.output])


def test_two_steps_of_one_graph_may_be_in_flight(cuda):
    runner = Runner(load_codec(GOLDEN, device="cuda"), POOLS[1:], SLOTS, (2,))
    runner.warm_up()
    (pool,) = POOLS[1:]
    mine, other = stream(pool, 1, runner), stream(pool, 2, runner)
    wanted = [alone(runner, pool, 0, mine[:1], 2)[0].copy(), alone(runner, pool, 1, other[:1], 2)[0].copy()]
    runner.reset(pool, 0)
    runner.reset(pool, 1)
    steps = [runner.launch(pool, [slot], [windows[0]], 2) for slot, windows in enumerate((mine, other))]
    for step, row in zip(steps, wanted, strict=True):
        np.testing.assert_array_equal(step.wait()[0], row)


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool.kind)
def test_a_reset_is_one_operation_and_a_snapshot_is_one_copy(cuda, pool):
    runner = Runner(load_codec(GOLDEN, device="cuda"), [pool], SLOTS, (2,))
    windows = stream(pool, 1, runner, 9)
    wanted = alone(runner, pool, 0, windows, 2)
    runner.reset(pool, 0)
    alone(runner, pool, 0, windows[:2], 2)
    if cuda is not None:
        cuda.syncs.clear()
        before = cuda.operations
    snapshot = runner.snapshot(pool, 0)
    if cuda is not None:
        assert len(cuda.syncs) == 1
        before = cuda.operations
    runner.reset(pool, 0)
    if cuda is not None:
        assert cuda.operations - before == 2, "a view and a fill"
        assert len(cuda.syncs) == 1
    runner.restore(pool, 2, snapshot)
    np.testing.assert_array_equal(alone(runner, pool, 2, windows[2:], 2), wanted[2:])
    np.testing.assert_array_equal(alone(runner, pool, 0, windows, 2), wanted)


def test_a_snapshot_of_one_device_is_restored_on_another(cuda):
    (pool,) = POOLS[1:]
    there, here = (Runner(load_codec(GOLDEN, device), [pool], SLOTS, (2,)) for device in ("cuda", "cpu"))
    windows = stream(pool, 1, here)
    alone(there, pool, 0, windows[:5], 2)
    here.restore(pool, 1, there.snapshot(pool, 0))
    wanted, got = alone(there, pool, 0, windows[5:6], 2), alone(here, pool, 1, windows[5:6], 2)
    meant = got[0][windows[5].output]
    assert np.abs(wanted[0][windows[5].output] - meant).max() <= 1e-4 * np.abs(meant).max()


@pytest.mark.parametrize("fault", ["a capture fails", "a replay differs"])
def test_without_exact_graphs_steps_are_eager_unless_graphs_are_demanded(cuda, fault, monkeypatch, caplog):
    codec = load_codec(GOLDEN, device="cuda")

    def replay(graph):
        graph.replays += 1

    def capture_begin(graph, *args, **kwargs):
        raise RuntimeError("no capture")

    if fault == "a replay differs":
        monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", replay)
    else:
        monkeypatch.setattr(torch.cuda, "graph", capture_begin)
    runner = Runner(codec, POOLS[1:], SLOTS, (2,))
    runner.warm_up()
    assert (runner.max_edges, runner.depth) == (None, 1)
    assert "capturing steps as CUDA graphs failed" in caplog.text
    demanding = Runner(codec, POOLS[1:], SLOTS, (2,), cuda_graphs="on")
    if fault == "a capture fails":
        with pytest.raises(RuntimeError, match="no capture"):
            demanding.warm_up()
