"""Allocation of slots in a state. A slot carries the generation of its place, which rises at each reuse, so that late
results are recognised.
"""

from collections import deque
from dataclasses import dataclass

from neucodec_streaming.errors import CapacityError


@dataclass(frozen=True)
class Slot:
    """A place in the state, and how often it was allocated before; `is_dirty`: it has to be reset before its use."""

    index: int
    generation: int
    is_dirty: bool = False


class Slots:
    """`count` places, numbered from 0; the one that has been free longest is allocated first."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._generations = [0] * count
        self._free = deque(range(count))
        self._dirty = [False] * count

    def acquire(self) -> Slot:
        """Allocates a place. Raises CapacityError if none is free."""
        if not self._free:
            raise CapacityError(f"all {self.count} slots are in use: try again later, or raise max_sessions")
        index = self._free.popleft()
        return Slot(index, self._generations[index], self._dirty[index])

    def release(self, slot: Slot, is_dirty: bool = False) -> None:
        """Frees a place, which `is_dirty` if it was used; freeing one that was reallocated is a bug."""
        assert self.is_current(slot), "a slot is released once, by its owner"
        self._generations[slot.index] += 1
        self._free.append(slot.index)
        self._dirty[slot.index] = is_dirty

    def is_current(self, slot: Slot) -> bool:
        """Whether `slot` is still allocated to its owner."""
        return self._generations[slot.index] == slot.generation
