"""What encoder and decoder have in common: one call steps many slots, and one slot's state becomes bytes and back."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neucodec_streaming.config import START_FRAMES, StreamConfig
from neucodec_streaming.errors import SnapshotError
from neucodec_streaming.layers.step import StepPlan, tensors_of
from neucodec_streaming.snapshot import pack, unpack


class Stepper(ABC):
    """Steps a part of a `NeuCodecModel` over windows of chunk and lookahead.

    It holds weights and constants only: all that changes is in the state that `new_state` makes and the caller keeps.
    """

    kind: str
    """"encode" or "decode"."""

    def __init__(self, model: Any, config: StreamConfig, fingerprint: str) -> None:
        self.model = model
        self.config = config
        self.fingerprint = fingerprint
        self.threads: int | None = None
        """Of torch for streams of this stepper; None: as torch is set."""

    @property
    def device(self) -> torch.device:
        return self.model.quantizer.project_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.quantizer.project_in.weight.dtype

    @property
    @abstractmethod
    def window_shape(self) -> tuple[int, ...]:
        """Shape of one row of a step's input."""

    @abstractmethod
    def new_state(self, slots: int) -> Any:
        """State of that many fresh slots."""

    @abstractmethod
    def compute(self, x: Tensor, state: Any, plan: StepPlan) -> Tensor:
        """One step over gathered positions; the state but for `position` advances."""

    @torch.inference_mode()
    def step(self, x: Tensor, state: Any, slots: Tensor, valid: Tensor, commit: Tensor) -> Tensor:
        """StepPlan the rows of x (B, *window_shape) that stand for `slots`; slots, valid, commit int64 (B,)."""
        plan = self._plan(slots, valid, commit, state.position[slots])
        y = self.compute(x, state, plan)
        state.position[slots] = plan.position + commit
        return y

    def _plan(self, slots: Tensor, valid: Tensor, commit: Tensor, position: Tensor) -> StepPlan:
        if position.device.type != "cpu":
            return StepPlan(slots, valid, commit, position)
        chunk = self.config.chunk_frames
        edges = (valid < self.config.window_frames) | (position < START_FRAMES) | (commit != chunk)
        return StepPlan(slots, valid, commit, position, None if edges.any() else chunk)

    @torch.inference_mode()
    def reset(self, state: Any, slots: Tensor) -> None:
        """Those slots are as new."""
        for tensor in tensors_of(state):
            tensor[slots] = 0

    def slot_state(self, state: Any, slot: int) -> list[Tensor]:
        """A copy of what one slot remembers, for `load`."""
        return [tensor[slot].clone() for tensor in tensors_of(state)]

    @torch.inference_mode()
    def load(self, state: Any, slot: int, remembered: list[Tensor]) -> None:
        """Put a copy of a `slot_state` of this stepper into a slot."""
        for tensor, part in zip(tensors_of(state), remembered, strict=True):
            tensor[slot].copy_(part)

    def snapshot(self, state: Any, slot: int) -> bytes:
        """State of one slot, as bytes that name model and configuration."""
        return pack(self.identity, [raw_bytes(tensor[slot]) for tensor in tensors_of(state)])

    @torch.inference_mode()
    def restore(self, state: Any, slot: int, snapshot: bytes) -> None:
        """Put a snapshot into a slot. Raises SnapshotError, and then nothing has changed."""
        own = [tensor[slot] for tensor in tensors_of(state)]
        raw = unpack(self.identity, snapshot)
        if [len(part) for part in raw] != [tensor.nbytes for tensor in own]:
            raise SnapshotError("snapshot holds tensors of other shapes: restore it where it was taken")
        for tensor, part in zip(own, raw, strict=True):
            if part:
                flat = torch.frombuffer(bytearray(part), dtype=tensor.dtype)
                tensor.copy_(flat.view(tensor.shape))

    @property
    def identity(self) -> dict[str, Any]:
        """What must be equal for a snapshot to fit."""
        config = self.config
        return {
            "kind": self.kind,
            "model": self.fingerprint,
            "dtype": str(self.dtype),
            "chunk_frames": config.chunk_frames,
            "lookahead_frames": config.lookahead_frames,
            "context_frames": config.context_frames,
            "prior_weight": config.prior_weight,
        }


@contextmanager
def threads_limited(threads: int | None) -> Iterator[None]:
    """Torch computes with so many threads inside, and afterwards as before; None changes nothing."""
    before = torch.get_num_threads()
    if threads is None or threads == before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def raw_bytes(tensor: Tensor) -> np.ndarray:
    """The tensor's memory as uint8, whatever its dtype."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
