"""One step of many slots: which rows, how far each exists, how much each commits; and how state is read and written.

Every layer gets its input of B rows, a state whose tensors have the slot axis first, and a `Step`. It reads the rows of
`slots`, computes, and writes back what the next step needs. Nothing branches on values, so a CUDA graph can replay it.
A slot whose tensors are all zero is fresh: no layer needs another reset.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Step:
    """Rows of a step, in frames. All tensors are int64 (B,).

    slots: the slot of each row. valid: frames right of it do not exist. commit: the state advances by this many, at
    most valid. position: frames that each slot has committed before.
    """

    slots: Tensor
    valid: Tensor
    commit: Tensor
    position: Tensor
    _shared: dict[tuple, Tensor] = field(default_factory=dict, repr=False)

    def with_valid(self, valid: Tensor) -> "Step":
        """The same step for a branch in which other frames exist."""
        return Step(self.slots, valid, self.commit, self.position)

    def exists(self, length: int, unit: int = 1) -> Tensor:
        """Mask of what exists among `length` elements, `unit` of them a frame: bool (B, length)."""
        return self._once("exists", length, unit, lambda index: index < (self.valid * unit)[:, None])

    def commits(self, length: int, unit: int = 1) -> Tensor:
        """Mask of what is committed among `length` elements, `unit` of them a frame: bool (B, length)."""
        return self._once("commits", length, unit, lambda index: index < (self.commit * unit)[:, None])

    def border(self, kept: int, unit: int = 1) -> Tensor:
        """Where the `kept` elements before the committed border lie, in an axis that begins with as many past ones."""
        return self._once("border", kept, unit, lambda index: index + (self.commit * unit)[:, None])

    def _once(self, name: str, length: int, unit: int, make: Callable[[Tensor], Tensor]) -> Tensor:
        """What the layers of a step share is computed by the first that asks."""
        key = (name, length, unit)
        if key not in self._shared:
            self._shared[key] = make(torch.arange(length, device=self.position.device))
        return self._shared[key]


def advance(past_and_window: Tensor, kept: int, at: Step, unit: int = 1) -> Tensor:
    """The `kept` elements before the committed border, of (B, C, kept + T or more) along time: (B, C, kept)."""
    index = at.border(kept, unit)[:, None].expand(-1, past_and_window.shape[1], -1)
    return past_and_window.gather(2, index)


def tensors_of(state: object) -> Iterator[Tensor]:
    """Every tensor of a state (dataclasses, lists and tensors), in a fixed order."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, (list, tuple)):
        for part in state:
            yield from tensors_of(part)
    elif is_dataclass(state):
        for part in fields(state):
            yield from tensors_of(getattr(state, part.name))
    else:
        raise TypeError(f"a state holds tensors, lists and dataclasses, not {type(state).__name__}")
