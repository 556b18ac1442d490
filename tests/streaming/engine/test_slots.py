import pytest

from neucodec_streaming.engine.slots import Slot, Slots
from neucodec_streaming.errors import CapacityError


def test_every_slot_is_assigned_once_before_the_engine_is_full():
    slots = Slots(3)
    assert {slots.acquire().index for _ in range(3)} == {0, 1, 2}
    with pytest.raises(CapacityError, match="all 3 slots"):
        slots.acquire()


def test_a_reused_slot_has_a_new_generation():
    slots = Slots(1)
    first = slots.acquire()
    slots.release(first)
    second = slots.acquire()
    assert second == Slot(0, 1)
    assert slots.is_current(second) and not slots.is_current(first)


def test_the_longest_free_slot_is_reused_first():
    slots = Slots(3)
    first = slots.acquire()
    slots.release(first)
    assert [slots.acquire().index for _ in range(3)] == [1, 2, 0]
