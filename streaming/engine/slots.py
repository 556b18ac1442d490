"""Which places of a state are free. A slot carries the generation of its place: a place that has changed hands has a
higher one, so a result that arrives late can be told from a current one."""

from collections import deque
from dataclasses import dataclass

from neucodec_streaming.errors import CapacityError


@dataclass(frozen=True)
class Slot:
    """A place in the state, and how many times that place had been given away before."""

    index: int
    generation: int


class Slots:
    """`count` places, numbered from 0; the one that was free the longest goes first."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._generations = [0] * count
        self._free = deque(range(count))

    @property
    def used(self) -> int:
        """Places that are taken."""
        return self.count - len(self._free)

    def acquire(self) -> Slot:
        """A free place. Raises CapacityError when there is none."""
        if not self._free:
            raise CapacityError(f"all {self.count} slots are in use: try again later, or raise max_sessions")
        index = self._free.popleft()
        return Slot(index, self._generations[index])

    def release(self, slot: Slot) -> None:
        """Gives a place back; releasing a place that has changed hands is a mistake."""
        assert self.is_current(slot), "a slot is released once, by whoever acquired it"
        self._generations[slot.index] += 1
        self._free.append(slot.index)

    def is_current(self, slot: Slot) -> bool:
        """Whether `slot` still belongs to whoever acquired it."""
        return self._generations[slot.index] == slot.generation
