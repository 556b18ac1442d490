import pytest

from neucodec_streaming.config import StreamConfig
from neucodec_streaming.engine.budget import Budget
from neucodec_streaming.engine.scheduler import Pool
from neucodec_streaming.errors import CapacityError
from neucodec_streaming.server.sessions.admission import Admission

CONFIG = StreamConfig(5, 5)
ENCODE, DECODE = Pool("encode", CONFIG), Pool("decode", CONFIG)
TIMES = {ENCODE: {1: 0.02}, DECODE: {1: 0.01}}  # chunks of 100 ms: three roundtrips are a load of 90 %


def test_sessions_are_admitted_up_to_the_load_and_again_after_one_ends():
    admission = Admission(Budget(TIMES, 0.7), 64)
    for _ in range(2):
        assert admission.admit("roundtrip", CONFIG) == 0
    with pytest.raises(CapacityError, match=r"its load to 90%, above the limit of 70%"):
        admission.admit("roundtrip", CONFIG)
    admission.admit("decode", CONFIG)
    assert admission.sessions == 3 and admission.load == pytest.approx(0.7)
    with pytest.raises(CapacityError):
        admission.admit("decode", CONFIG)
    admission.release(0, "roundtrip", CONFIG)
    admission.admit("encode", CONFIG)


def test_a_refusal_names_the_part_that_is_full():
    admission = Admission(Budget(TIMES, 0.7, {DECODE: {1: 0.04}}), 64)
    admission.admit("decode", CONFIG)
    with pytest.raises(CapacityError, match=r"the host is full: .* load to 80%, above the limit of 70%"):
        admission.admit("decode", CONFIG)


def test_slots_limit_admission_too():
    admission = Admission(Budget(), 2)
    admission.admit("encode", CONFIG)
    admission.admit("decode", CONFIG)
    with pytest.raises(CapacityError, match="all 2 sessions"):
        admission.admit("decode", CONFIG)
    assert admission.capacity("roundtrip", CONFIG) == 2


def test_a_device_too_slow_for_one_session_still_serves_one():
    admission = Admission(Budget({ENCODE: {1: 9.0}}), 64)
    assert admission.capacity("encode", CONFIG) == 1
    admission.admit("encode", CONFIG)
    with pytest.raises(CapacityError):
        admission.admit("encode", CONFIG)
    admission.release(0, "encode", CONFIG)
    admission.admit("encode", CONFIG)


def test_the_worker_with_the_least_load_gets_the_session():
    admission = Admission(Budget(TIMES, 0.7), 64, workers=2)
    assert [admission.admit("roundtrip", CONFIG) for _ in range(4)] == [0, 1, 0, 1]
    with pytest.raises(CapacityError):
        admission.admit("roundtrip", CONFIG)
    assert admission.capacity("roundtrip", CONFIG) == 4 and admission.load == pytest.approx(0.6)
    admission.release(1, "roundtrip", CONFIG)
    assert admission.admit("encode", CONFIG) == 1


def test_no_worker_gets_more_sessions_of_a_pool_than_it_has_slots():
    admission = Admission(Budget(TIMES, 9.0), 4, workers=2)
    assert [admission.admit(kind, CONFIG) for kind in ("encode", "decode", "decode", "decode")] == [0, 1, 1, 0]
