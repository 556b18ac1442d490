"""The state of many slots in one block of memory: a slot is a row of bytes, and each of its tensors a strided view.

Resetting or copying a slot is then a single operation, which matters on CUDA, where launching costs more than the work.
The native CPU operations need contiguous tensors instead.
"""

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from neucodec_streaming.kernels.memory import aligned
from neucodec_streaming.layers.step import tensors_of


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
    return sum(aligned(tensor.nbytes) for tensor in tensors_of(one))


def laid_over(memory: Tensor, one: AnyState) -> AnyState:
    """A state over `memory` (slots, bytes), each slot laid out like `one`."""
    tensors = list(tensors_of(one))
    parts = memory.split([aligned(tensor.nbytes) for tensor in tensors], dim=1)
    views: dict[int, Any] = {id(tensor): _view(part, tensor) for part, tensor in zip(parts, tensors, strict=True)}
    return replace(deepcopy(one, views), memory=memory)  # a copy with the views instead of the tensors


def _view(part: Tensor, like: Tensor) -> Tensor:
    """The bytes of a tensor in each slot (slots, bytes) as a tensor like that of one slot."""
    part = part[:, : like.nbytes].view(like.dtype)
    return part.unflatten(1, like.shape[1:]) if like.dim() > 1 else part[:, 0]
