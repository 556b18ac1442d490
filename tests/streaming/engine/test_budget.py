import pytest

from neucodec_streaming.config import StreamConfig
from neucodec_streaming.engine.budget import Budget
from neucodec_streaming.engine.scheduler import Pool

ENCODE = Pool("encode", StreamConfig(5, 5))  # a chunk lasts 100 ms
DECODE = Pool("decode", StreamConfig(5, 5))
SHORT = Pool("decode", StreamConfig(2, 3))  # 40 ms
UNEVEN = Pool("encode", StreamConfig(5, 4))
TIMES = {
    UNEVEN: {1: 0.015, 4: 0.025, 8: 0.035},
    ENCODE: {1: 0.010, 4: 0.020},
    DECODE: {1: 0.005, 4: 0.010},
    SHORT: {1: 0.010},
}


def test_load_is_zero_without_sessions():
    assert Budget(TIMES).load({}) == 0 == Budget(TIMES).load({ENCODE: 0})


@pytest.mark.parametrize(
    ("sessions", "load"),
    [
        ({ENCODE: 1}, 0.10),
        ({ENCODE: 2}, 0.20),  # the smallest batch that fits has four rows
        ({ENCODE: 4}, 0.20),
        ({ENCODE: 5}, 0.30),
        ({ENCODE: 9, DECODE: 4}, 0.50 + 0.10),
        ({UNEVEN: 5}, 0.35),  # in one batch: in two it would be 0.40
        ({SHORT: 1}, 0.25),
        ({SHORT: 3}, 0.75),
    ],
)
def test_load_is_the_time_of_one_step_of_every_session_per_chunk_duration(sessions, load):
    assert Budget(TIMES).load(sessions) == pytest.approx(load)


def test_capacity_is_the_largest_number_of_sessions_that_fits():
    budget = Budget(TIMES, max_load=0.7)
    for pools in ([ENCODE], [DECODE], [ENCODE, DECODE], [SHORT]):
        count = budget.capacity(pools, 1000)
        assert budget.fits(dict.fromkeys(pools, count)) and not budget.fits(dict.fromkeys(pools, count + 1))
    assert budget.capacity([ENCODE], 5) == 5
    assert Budget(TIMES, max_load=0.01).capacity([ENCODE], 5) == 0


def test_the_busier_of_device_and_host_limits():
    host_s = {ENCODE: {1: 0.001, 4: 0.004}, DECODE: {1: 0.005, 4: 0.020}}
    budget = Budget(TIMES, max_load=0.7, host_s=host_s)
    assert budget.load({ENCODE: 4}) == pytest.approx(0.20) and not budget.is_limited_by_host({ENCODE: 4})
    assert budget.load({ENCODE: 4, DECODE: 8}) == pytest.approx(0.44) and budget.is_limited_by_host({DECODE: 8})
    assert (budget.capacity([DECODE], 99), Budget(TIMES, max_load=0.7).capacity([DECODE], 99)) == (14, 26)


def test_unmeasured_pools_cost_nothing():
    assert Budget().fits({ENCODE: 10_000}) and Budget().capacity([ENCODE], 64) == 64
