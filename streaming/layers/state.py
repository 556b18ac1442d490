"""The state of many slots in one block of memory: a slot is a row of bytes, and each of its tensors a strided view.

Resetting or copying a slot is then a single operation, which matters on CUDA, where launching costs more than the work.
The native CPU operations need contiguous tensors instead.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from neucodec_streaming.layers.step import tensors_of

ALIGNMENT_BYTES = 64


@dataclass(kw_only=True)
class SlotState:
    """A stepper's state, slot axis first; all zeros is fresh. `position`: frames committed, (slots,). `frames_seen`:
    frames in the running statistics, (slots, 1). `memory`: all tensors as (slots, bytes), or None."""

    position: Tensor
    frames_seen: Tensor
    memory: Tensor | None = None


AnyState = TypeVar("AnyState", bound=SlotState)


def memory_for(one: SlotState, slots: int, device: torch.device) -> Tensor:
    """Memory for `slots` fresh slots, each laid out like the one-slot state `one`: uint8 (slots, bytes)."""
    return torch.zeros(slots, slot_bytes(one), dtype=torch.uint8, device=device)


def slot_bytes(one: SlotState) -> int:
    """Bytes of a slot in such memory."""
    return sum(map(_bytes, tensors_of(one)))


def laid_over(memory: Tensor, one: AnyState) -> AnyState:
    """A state over `memory` (slots, bytes), each slot laid out like `one`."""
    tensors = list(tensors_of(one))
    parts = zip(memory.split([_bytes(tensor) for tensor in tensors], dim=1), tensors, strict=True)

    def view(_: Tensor) -> Tensor:
        part, tensor = next(parts)
        part = part[:, : tensor.nbytes].view(tensor.dtype)
        return part.unflatten(1, tensor.shape[1:]) if tensor.dim() > 1 else part[:, 0]

    return replace(_mapped(one, view), memory=memory)


def _bytes(tensor: Tensor) -> int:
    return -(-tensor.nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _mapped(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The state with each tensor replaced, in the order of `tensors_of`."""
    if isinstance(state, Tensor):
        return change(state)
    if isinstance(state, (list, tuple)):
        return type(state)(_mapped(part, change) for part in state)
    if is_dataclass(state) and not isinstance(state, type):
        names = [part.name for part in fields(state) if part.name != "memory"]
        return replace(state, **{name: _mapped(getattr(state, name), change) for name in names})
    raise TypeError(f"a state holds tensors, lists and dataclasses, not {type(state).__name__}")
