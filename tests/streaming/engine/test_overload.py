from itertools import pairwise

from neucodec_streaming.engine.overload import PATIENCE_S, Overload


def test_overload_closes_no_session_while_steps_are_in_time():
    overload = Overload(2.0)
    assert not any(overload.sheds(1.9, now_s) for now_s in range(100))


def test_overload_closes_one_session_per_patience_interval():
    overload = Overload(2.0)
    gone = [step for step in range(100) if overload.sheds(2.1 + step * 0.01, step * 0.1)]
    patience = round(PATIENCE_S / 0.1)
    assert gone[0] == patience and {b - a for a, b in pairwise(gone)} == {patience}


def test_overload_does_not_close_a_session_that_is_catching_up():
    overload = Overload(2.0)
    assert not any(overload.sheds(10.0 - step * 0.1, step * 0.1) for step in range(80))


def test_a_pause_of_the_machine_is_not_overload():
    overload = Overload(2.0)
    assert not overload.sheds(30.0, 100.0)
    assert not overload.sheds(1.0, 100.5)
    assert not overload.sheds(30.0, 200.0), "counted from the second time, not from the first"
