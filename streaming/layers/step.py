"""The plan of one step of many slots: its rows, their valid lengths and commits; and access to the state.

Every layer gets its input of B rows, a state whose tensors have the slot axis first, and a `StepPlan`. It reads the
rows of `slots`, computes, and writes back what the next step needs. Nothing branches on values, so a CUDA graph can
replay it. A steady step omits the operations that only the edges of streams need, with the same bits. A slot whose
tensors are all zero is fresh, so zeroing is the only reset.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class StepPlan:
    """Rows of a step, in frames. All tensors are int64 (B,).

    slots: the slot of each row. valid: number of frames that exist. commit: frames by which the state advances, at most
    valid. position: frames that each slot committed before. chunk: the commit of every row in a steady step, in which
    no row reaches its stream's start or has missing frames; None in other steps.
    """

    slots: Tensor
    valid: Tensor
    commit: Tensor
    position: Tensor
    chunk: int | None = None
    _shared: dict[tuple, Tensor] = field(default_factory=dict, repr=False)
    _indices: dict[int, Tensor] = field(default_factory=dict, repr=False)

    @property
    def edges(self) -> bool:
        """Whether the step may contain edges of streams (is not steady)."""
        return self.chunk is None

    def load(self, state: Tensor) -> Tensor:
        """Each row's part of a state: (slots, ...) -> (B, ...)."""
        return state.index_select(0, self.slots)

    def store(self, state: Tensor, new: Tensor) -> None:
        """Put each row's part (B, ...) into a state (slots, ...)."""
        state.index_copy_(0, self.slots, new)

    def with_valid(self, valid: Tensor) -> "StepPlan":
        """The same step for a branch whose windows have `valid` existing frames."""
        return replace(self, valid=valid, _shared={})

    def window(self, frames: int, commit: Tensor) -> "StepPlan":
        """The same step over the window's first `frames` only, with other commits."""
        return replace(self, valid=self.valid.clamp(max=frames), commit=commit, chunk=None, _shared={})

    def ahead(self, lead: int, frames: int) -> "StepPlan":
        """The same step for layers that are `lead` frames ahead of it, over the `frames` after those."""
        valid = (self.valid - lead).clamp(min=0)
        commit = self.commit.clamp(max=frames)  # only a stream's end commits more
        return replace(self, valid=valid, commit=commit, position=self.position + lead, _shared={})

    def exists(self, length: int, unit: int = 1) -> Tensor:
        """Mask of existing elements among `length`, `unit` of them a frame: bool (B, length)."""
        return self._once("exists", length, unit, lambda index: index < (self.valid * unit)[:, None])

    def commits(self, length: int, unit: int = 1) -> Tensor:
        """Mask of committed elements among `length`, `unit` of them a frame: bool (B, length)."""
        return self._once("commits", length, unit, lambda index: index < (self.commit * unit)[:, None])

    def border(self, kept: int, unit: int = 1) -> Tensor:
        """Indices of the `kept` elements before the commit border, in an axis that starts with as many past ones."""
        return self._once("border", kept, unit, lambda index: index + (self.commit * unit)[:, None])

    def before(self, count: int, unit: int = 1) -> Tensor:
        """Mask of those of the `count` elements left of the window that precede the stream's start: bool (B, count)."""
        return self._once("before", count, unit, lambda index: index < (count - self.position * unit)[:, None])

    def beyond(self, count: int, unit: int = 1) -> Tensor:
        """Indices of the `count` elements after the last existing one: int64 (B, count)."""
        return self._once("beyond", count, unit, lambda index: index + (self.valid * unit)[:, None])

    def _once(self, name: str, length: int, unit: int, make: Callable[[Tensor], Tensor]) -> Tensor:
        """Caches values that the layers of a step share; the first layer to need one computes it."""
        key = (name, length, unit)
        if key not in self._shared:
            self._shared[key] = make(self.index(length))
        return self._shared[key]

    def index(self, length: int) -> Tensor:
        """0, 1, ... length - 1, created once a step for all branches."""
        if length not in self._indices:
            self._indices[length] = torch.arange(length, device=self.position.device)
        return self._indices[length]

    def read(self, x: Tensor, places: Tensor) -> Tensor:
        """x (B, T, C) at `places` (B, N) of its time axis: (B, N, C)."""
        return x[self.index(len(x))[:, None], places]

    def write(self, x: Tensor, places: Tensor, values: Tensor) -> None:
        """Put values (B, N or 1, C or 1) into x (B, T, C) at `places` (B, N) of its time axis."""
        x[self.index(len(x))[:, None], places] = values


def advance(past_and_window: Tensor, kept: int, plan: StepPlan, unit: int = 1) -> Tensor:
    """The `kept` elements before the commit border of (B, kept + T or more, C): (B, kept, C)."""
    if plan.chunk is not None:
        return past_and_window.narrow(1, plan.chunk * unit, kept)
    return plan.read(past_and_window, plan.border(kept, unit))


def tensors_of(state: object) -> Iterator[Tensor]:
    """Every tensor of a state (dataclasses, lists and tensors) in a fixed order, without the memory they view."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, (list, tuple)):
        for part in state:
            yield from tensors_of(part)
    elif is_dataclass(state):
        for part in fields(state):
            if part.name != "memory":
                yield from tensors_of(getattr(state, part.name))
    else:
        raise TypeError(f"a state holds tensors, lists and dataclasses, not {type(state).__name__}")
