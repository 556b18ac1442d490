import pickle

import pytest

from neucodec_streaming.config import StreamConfig
from neucodec_streaming.engine.scheduler import Pool, ReadyWindow, Scheduler

LIVE = Pool("encode", StreamConfig(5, 5))  # a chunk lasts 0.1 s
OTHER = Pool("decode", StreamConfig(5, 5))


def scheduler(*pools: Pool, sizes=(1, 2, 4), gather_s=0.004, **options) -> Scheduler:
    made = Scheduler(sizes, gather_s, **options)
    for pool in pools:
        made.enrol(pool)
    return made


def test_without_windows_there_is_no_batch_and_no_wake_up_time():
    empty = scheduler(LIVE)
    assert empty.next_batch(0.0) is None and empty.wake_s() is None


def test_the_only_session_of_a_pool_does_not_wait():
    alone = scheduler(LIVE)
    alone.add(LIVE, "a", ReadyWindow(1.0, 1.1))
    assert alone.wake_s() == 1.0
    batch = alone.next_batch(1.0)
    assert (batch.members, batch.size) == (["a"], 1)


def test_a_window_waits_for_others_and_no_longer_than_the_gathering_time():
    two = scheduler(LIVE, LIVE)
    two.add(LIVE, "a", ReadyWindow(1.0, 1.1))
    assert two.next_batch(1.003) is None
    assert two.wake_s() == pytest.approx(1.004)
    assert two.next_batch(1.004).members == ["a"]


def test_gathering_ends_once_every_session_has_a_window():
    two = scheduler(LIVE, LIVE)
    two.add(LIVE, "a", ReadyWindow(1.0, 1.1))
    two.add(LIVE, "b", ReadyWindow(1.001, 1.101))
    batch = two.next_batch(1.001)
    assert (sorted(batch.members), batch.size) == (["a", "b"], 2)


def test_gathering_is_far_shorter_than_a_short_chunk():
    short = Pool("encode", StreamConfig(1, 1))
    two = scheduler(short, short, gather_s=0.1)
    two.add(short, "a", ReadyWindow(1.0, 1.02))
    assert two.wake_s() == pytest.approx(1.0025)


def test_a_full_batch_does_not_wait_and_takes_the_earliest_deadlines():
    many = scheduler(*[LIVE] * 9)
    for number in range(5):
        many.add(LIVE, number, ReadyWindow(1.0, 1.2 - number * 0.01))
    batch = many.next_batch(1.0)
    assert (batch.members, batch.size) == ([4, 3, 2, 1], 4)
    assert many.has(LIVE, 0) and not many.has(LIVE, 4)


def test_if_all_batch_sizes_take_equally_long_the_smallest_that_fits_is_used():
    three = scheduler(*[LIVE] * 3)
    for number in range(3):
        three.add(LIVE, number, ReadyWindow(1.0, 1.1))
    assert three.next_batch(1.0).size == 4


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (2, [2]), (3, [4]), (5, [4, 1]), (7, [8]), (9, [8, 1])])
def test_spare_rows_are_computed_only_if_that_lowers_the_time_per_window(count, sizes):
    made = scheduler(*[LIVE] * 9, sizes=(1, 2, 4, 8), gather_s=0.0, step_s={LIVE: {1: 3.0, 2: 4.5, 4: 6.0, 8: 10.0}})
    for number in range(count):
        made.add(LIVE, number, ReadyWindow(1.0, 1.1))
    batches = [made.next_batch(1.0) for _ in sizes]
    assert [batch.size for batch in batches] == sizes and sum(len(batch.members) for batch in batches) == count


def test_the_pool_with_the_earliest_deadline_goes_first():
    both = scheduler(LIVE, OTHER)
    both.add(LIVE, "a", ReadyWindow(1.0, 1.2))
    both.add(OTHER, "b", ReadyWindow(1.0, 1.1))
    assert both.next_batch(1.0).pool is OTHER
    assert both.next_batch(1.0).pool is LIVE


def test_windows_that_are_not_due_soon_only_fill_spare_rows():
    many = scheduler(*[LIVE] * 7)
    for number in range(3):
        many.add(LIVE, f"live {number}", ReadyWindow(1.0, 1.1))
    for number in range(4):
        many.add(LIVE, f"burst {number}", ReadyWindow(0.5, 9.0 + number))
    batch = many.next_batch(1.0)
    assert batch.size == 4 and batch.members == ["live 0", "live 1", "live 2", "burst 0"]
    assert len(many.next_batch(1.0).members) == 3, "alone, they use the whole batch"


def test_pools_are_equal_by_kind_and_configuration_across_processes():
    assert {LIVE: 1}[pickle.loads(pickle.dumps(LIVE))] == 1
    assert LIVE not in (OTHER, Pool("encode", StreamConfig(5, 4)), Pool("encode", StreamConfig(5, 5, 20)))


def test_a_removed_session_is_not_stepped():
    alone = scheduler(LIVE)
    alone.add(LIVE, "a", ReadyWindow(1.0, 1.1))
    alone.remove(LIVE, "a")
    alone.remove(LIVE, "never there")
    assert alone.next_batch(2.0) is None


def waiting(step_s: float) -> Scheduler:
    """A live session had a window stepped at 1.0, so its next is expected at 1.1; another session is far ahead."""
    made = scheduler(LIVE, LIVE, gather_s=0.0, step_s={LIVE: {1: step_s, 2: step_s, 4: step_s}})
    made.add(LIVE, "live", ReadyWindow(1.0, 1.1))
    assert made.next_batch(1.0).members == ["live"]
    made.add(LIVE, "ahead", ReadyWindow(1.0, 9.0))
    return made


def held(deadline_s: float) -> Scheduler:
    """As `waiting`, with steps too long for the gap, and after the one batch that may still start."""
    made = waiting(step_s=0.06)
    assert made.next_batch(1.05).members == ["ahead"], "the one"
    made.add(LIVE, "ahead", ReadyWindow(1.0, deadline_s))
    assert made.next_batch(1.06) is None
    return made


def test_a_best_effort_batch_runs_while_no_live_window_is_expected():
    made = waiting(step_s=0.03)
    assert made.next_batch(1.05).members == ["ahead"]
    made.add(LIVE, "ahead", ReadyWindow(1.0, 9.1))
    assert made.next_batch(1.06).members == ["ahead"], "until 1.09"


def test_a_best_effort_batch_is_deferred_after_another_one_ran_in_a_gap():
    made = waiting(step_s=0.06)
    assert made.next_batch(1.02).members == ["ahead"], "until 1.08"
    made.add(LIVE, "ahead", ReadyWindow(1.0, 9.1))
    assert made.next_batch(1.05) is None


def test_a_best_effort_batch_is_deferred_for_at_most_one_chunk():
    made = held(deadline_s=9.1)
    assert made.wake_s() == pytest.approx(1.12), "the live one did not come"
    assert made.next_batch(1.13).members == ["ahead"]


def test_a_live_window_ends_the_deferral_and_the_deferred_window_joins_its_batch():
    made = held(deadline_s=9.1)
    made.add(LIVE, "live", ReadyWindow(1.1, 1.2))
    batch = made.next_batch(1.1)
    assert batch.members == ["live"] and batch.size == 1
    assert made.next_batch(1.11) is not None, "the next is far off"


def test_a_deferred_batch_runs_at_its_deadline():
    made = held(deadline_s=1.3)
    assert made.wake_s() == pytest.approx(1.1), "two chunks before"
    assert made.next_batch(1.1).members == ["ahead"]


def test_batches_do_not_wait_for_closed_sessions():
    made = held(deadline_s=9.1)
    made.remove(LIVE, "live")
    assert made.next_batch(1.06).members == ["ahead"]


def test_starts_and_endings_get_batches_of_their_own_if_they_do_not_mix():
    def waiting(**options) -> Scheduler:
        made = scheduler(*[LIVE] * 4, **options)
        for number in range(4):
            made.add(LIVE, number, ReadyWindow(1.0, 1.1 + 0.01 * number, is_steady=number in (1, 2)))
        return made

    assert waiting().next_batch(1.1).members == [0, 1, 2, 3]
    apart = waiting(max_edges=1)
    batches = [apart.next_batch(1.1) for _ in range(3)]
    assert [(batch.members, batch.size) for batch in batches] == [([0], 1), ([1, 2], 2), ([3], 1)]
    at_once = waiting(max_edges=4)
    batches = [at_once.next_batch(1.1) for _ in range(2)]
    assert [(batch.members, batch.size) for batch in batches] == [([0, 3], 2), ([1, 2], 2)]
