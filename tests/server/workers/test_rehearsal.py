"""The host's time of a step, measured before the first client."""

from itertools import count

import numpy as np
import pytest

from neucodec_streaming.engine.budget import Budget
from neucodec_streaming.server.sessions.admission import Admission
from neucodec_streaming.server.workers.converter import Converter
from neucodec_streaming.server.workers.rehearsal import Rehearsal, host_s_of
from neucodec_streaming.server.workers.worker import Worker
from tests.streaming.engine.fake import CONFIG, POOLS, FakeRunner


class Ticks:
    """A clock that only advances by what is charged to it."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def charge(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, seconds: float) -> None:
        """Makes each call of the method take that long."""
        real = getattr(owner, name)

        def slow(*given):
            self.now_s += seconds
            return real(*given)

        monkeypatch.setattr(owner, name, slow)


@pytest.fixture
def runner() -> FakeRunner:
    made = FakeRunner(slots=8, batch_sizes=(1, 4, 8))
    made.depth = 2
    return made


def test_the_cost_is_that_of_every_chunk_and_step_at_every_batch_size(runner, monkeypatch):
    clock = Ticks()
    clock.charge(monkeypatch, Worker, "command", 1.0)
    clock.charge(monkeypatch, FakeRunner, "launch", 100.0)
    found = host_s_of(runner, 24000, clock)
    assert found == {pool: {size: 100 + size for size in (1, 4, 8)} for pool in POOLS.values()}


def test_the_slower_of_the_two_processes_counts(runner, monkeypatch):
    clock = Ticks()
    clock.charge(monkeypatch, FakeRunner, "launch", 10.0)
    clock.charge(monkeypatch, Converter, "event", 7.0)
    times = host_s_of(runner, 24000, clock)[POOLS["decode"]]
    assert times[1] == 10 and times[8] == 8 * 7


def test_a_rehearsal_steps_full_batches_and_leaves_every_slot_reset(runner):
    Rehearsal(runner, POOLS["encode"], 4, 24000, count().__next__).step_s()
    assert {(kind, *sorted(slots), size) for kind, slots, size in runner.steps} == {("encode", 0, 1, 2, 3, 4)}
    assert runner.committed[POOLS["encode"]] == [0] * 8


def test_a_rehearsal_has_no_more_rows_than_slots(runner):
    runner.slots = 3
    Rehearsal(runner, POOLS["decode"], 8, 24000, count().__next__).step_s()
    assert {len(slots) for _, slots, _ in runner.steps} == {3}


def test_a_synchronous_runner_has_no_host_time_of_its_own():
    assert host_s_of(FakeRunner(), 24000) == {}


def test_admission_is_limited_by_the_time_of_the_host(runner, monkeypatch):
    clock = Ticks()
    clock.charge(monkeypatch, Worker, "command", 0.01)  # 10 ms for a chunk of 100 ms: seven sessions are 70 %
    pool = POOLS["decode"]
    step_s = {pool: dict.fromkeys(runner.batch_sizes, 0.001)}
    assert Admission(Budget(step_s, 0.7), 64).capacity("decode", CONFIG) == 64
    host_s = host_s_of(runner, 24000, clock)
    assert host_s[pool][8] == pytest.approx(8 * 0.01)
    assert Admission(Budget(step_s, 0.71, host_s), 64).capacity("decode", CONFIG) == 7
    assert np.isclose(Budget(step_s, 0.71, host_s).load({pool: 7}), 0.7)
