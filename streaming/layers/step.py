"""One step of many slots: which rows, how far each exists, how much each commits; and how state is read and written.

Every layer gets its input of B rows, a state whose tensors have the slot axis first, and a `StepPlan`. It reads the
rows of `slots`, computes, and writes back what the next step needs. Nothing branches on values, so a CUDA graph can
replay it. A steady step leaves out what the edges of streams need, to the same bits. A slot whose tensors are all zero
is fresh: no layer needs another reset.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class StepPlan:
    """Rows of a step, in frames. All tensors are int64 (B,).

    slots: the slot of each row. valid: frames right of it do not exist. commit: the state advances by this many, at
    most valid. position: frames that each slot has committed before. chunk: in a steady step, what every row commits,
    and no row has its stream's start in reach, or frames that do not exist; None: some row may.
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
        """Whether the step may be other than steady."""
        return self.chunk is None

    def load(self, state: Tensor) -> Tensor:
        """Each row's part of a state: (slots, ...) -> (B, ...)."""
        return state.index_select(0, self.slots)

    def store(self, state: Tensor, new: Tensor) -> None:
        """Put each row's part (B, ...) into a state (slots, ...)."""
        state.index_copy_(0, self.slots, new)

    def with_valid(self, valid: Tensor) -> "StepPlan":
        """The same step for a branch whose window is as much longer or shorter as what exists in it."""
        return replace(self, valid=valid, _shared={})

    def window(self, frames: int, commit: Tensor) -> "StepPlan":
        """The same step over the window's first `frames` only, committing others."""
        return replace(self, valid=self.valid.clamp(max=frames), commit=commit, chunk=None, _shared={})

    def ahead(self, lead: int, frames: int) -> "StepPlan":
        """The same step for layers that are `lead` frames ahead of it, over the `frames` after those."""
        valid = (self.valid - lead).clamp(min=0)
        commit = self.commit.clamp(max=frames)  # only an ending commits more
        return replace(self, valid=valid, commit=commit, position=self.position + lead, _shared={})

    def exists(self, length: int, unit: int = 1) -> Tensor:
        """Mask of what exists among `length` elements, `unit` of them a frame: bool (B, length)."""
        return self._once("exists", length, unit, lambda index: index < (self.valid * unit)[:, None])

    def commits(self, length: int, unit: int = 1) -> Tensor:
        """Mask of what is committed among `length` elements, `unit` of them a frame: bool (B, length)."""
        return self._once("commits", length, unit, lambda index: index < (self.commit * unit)[:, None])

    def border(self, kept: int, unit: int = 1) -> Tensor:
        """Where the `kept` elements before the committed border lie, in an axis that begins with as many past ones."""
        return self._once("border", kept, unit, lambda index: index + (self.commit * unit)[:, None])

    def before(self, count: int, unit: int = 1) -> Tensor:
        """Which of the `count` elements left of the window lie before the stream's start: bool (B, count)."""
        return self._once("before", count, unit, lambda index: index < (count - self.position * unit)[:, None])

    def beyond(self, count: int, unit: int = 1) -> Tensor:
        """The `count` elements right of what exists: int64 (B, count)."""
        return self._once("beyond", count, unit, lambda index: index + (self.valid * unit)[:, None])

    def _once(self, name: str, length: int, unit: int, make: Callable[[Tensor], Tensor]) -> Tensor:
        """What the layers of a step share is computed by the first that asks."""
        key = (name, length, unit)
        if key not in self._shared:
            self._shared[key] = make(self.index(length))
        return self._shared[key]

    def index(self, length: int) -> Tensor:
        """0, 1, ... length - 1; made once a step, for all its branches."""
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
    """The `kept` elements before the committed border, of (B, kept + T or more, C): (B, kept, C)."""
    if plan.chunk is not None:
        return past_and_window.narrow(1, plan.chunk * unit, kept)
    return plan.read(past_and_window, plan.border(kept, unit))


def tensors_of(state: object) -> Iterator[Tensor]:
    """Every tensor of a state (dataclasses, lists and tensors), in a fixed order; not what they are views of."""
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
