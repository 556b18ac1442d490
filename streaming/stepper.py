"""Base of encoder and decoder: one call steps many slots; a slot's state can be saved and restored as bytes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neucodec_streaming.config import START_FRAMES, StreamConfig
from neucodec_streaming.errors import SnapshotError
from neucodec_streaming.layers.norm import CAP_FRAMES
from neucodec_streaming.layers.state import laid_over, memory_for, slot_bytes
from neucodec_streaming.layers.step import StepPlan, tensors_of
from neucodec_streaming.priors import Priors
from neucodec_streaming.snapshot import pack, unpack


class Stepper(ABC):
    """Steps a part of a `NeuCodecModel` over windows of chunk and lookahead.

    It holds only weights and constants: everything that changes is in the state that `new_state` creates and the caller
    keeps.
    """

    kind: str
    """"encode" or "decode"."""
    output_hop: int
    """Output elements of a frame."""

    cap_frames = CAP_FRAMES

    def __init__(self, model: Any, config: StreamConfig, priors: Priors, fingerprint: str) -> None:
        self.model = model
        self.config = config
        self.prior_frames = priors.weight(config)
        self.fingerprint = fingerprint
        self.threads: int | None = None
        """Torch threads for streams of this stepper; None: torch's setting."""

    @property
    def device(self) -> torch.device:
        return self.model.quantizer.project_in.like.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.quantizer.project_in.like.dtype

    @property
    @abstractmethod
    def window_shape(self) -> tuple[int, ...]:
        """Shape of one row of a step's input."""

    def new_state(self, slots: int) -> Any:
        """State of fresh slots; except on a CPU in one block of memory (layers/state.py)."""
        if self.device.type == "cpu":
            return self.separate_state(slots)
        return laid_over(memory_for(self._one_slot, slots, self.device), self._one_slot)

    @property
    def slot_bytes(self) -> int:
        """Memory of a slot where states are one block (not on a CPU)."""
        return slot_bytes(self._one_slot)

    @cached_property
    def _one_slot(self) -> Any:
        """A fresh state of one slot, for the shapes of its tensors."""
        return self.separate_state(1)

    @abstractmethod
    def separate_state(self, slots: int) -> Any:
        """State of fresh slots, with separate tensors."""

    @abstractmethod
    def compute(self, x: Tensor, state: Any, plan: StepPlan) -> Tensor:
        """One step over gathered positions; advances the state except `position`."""

    @torch.inference_mode()
    def step(
        self, x: Tensor, state: Any, slots: Tensor, valid: Tensor, commit: Tensor, *, steady: bool | None = None
    ) -> Tensor:
        """Steps the rows of x (B, *window_shape) for `slots`; slots, valid, commit int64 (B,).

        `steady`: every row commits a chunk of a whole window and is past its stream's start. If it is None, a CPU
        checks, since that is cheap there; other devices run a step for any rows.
        """
        position = state.position[slots]
        if steady is None:
            steady = position.device.type == "cpu" and not self._has_edges(valid, commit, position)
        plan = StepPlan(slots, valid, commit, position, self.config.chunk_frames if steady else None)
        y = self.compute(x, state, plan)
        state.position[slots] = position + commit
        return y

    def _has_edges(self, valid: Tensor, commit: Tensor, position: Tensor) -> bool:
        whole = (valid >= self.config.window_frames) & (commit == self.config.chunk_frames)
        return not bool((whole & (position >= START_FRAMES)).all())

    @torch.inference_mode()
    def reset(self, state: Any, slot: int) -> None:
        for tensor in _pieces(state):
            tensor[slot].zero_()

    @torch.inference_mode()
    def slot_state(self, state: Any, slot: int) -> list[Tensor]:
        """A copy of one slot's state, for `load`."""
        return [tensor[slot].clone() for tensor in _pieces(state)]

    @torch.inference_mode()
    def load(self, state: Any, slot: int, remembered: list[Tensor]) -> None:
        """Copies a `slot_state` of this stepper into a slot."""
        for tensor, part in zip(_pieces(state), remembered, strict=True):
            tensor[slot].copy_(part)

    @torch.inference_mode()
    def snapshot(self, state: Any, slot: int) -> bytes:
        """A slot's state as bytes that identify model and configuration."""
        if state.memory is not None:
            state, slot = laid_over(state.memory[slot : slot + 1].cpu(), self._one_slot), 0
        return pack(self.identity, [raw_bytes(tensor[slot]) for tensor in tensors_of(state)])

    @torch.inference_mode()
    def restore(self, state: Any, slot: int, snapshot: bytes) -> None:
        """Restores a snapshot into a slot. Raises SnapshotError, and then changes nothing."""
        raw, own, at = unpack(self.identity, snapshot), state, slot
        if state.memory is not None:  # assembled on the host and copied at once
            own, at = laid_over(memory_for(self._one_slot, 1, torch.device("cpu")), self._one_slot), 0
        tensors = [tensor[at] for tensor in tensors_of(own)]
        if [len(part) for part in raw] != [tensor.nbytes for tensor in tensors]:
            raise SnapshotError("snapshot contains tensors of other shapes: use the same model and configuration")
        for tensor, part in zip(tensors, raw, strict=True):
            if part:
                flat = torch.frombuffer(bytearray(part), dtype=tensor.dtype)
                tensor.copy_(flat.view(tensor.shape))
        if own is not state:
            state.memory[slot].copy_(own.memory[0])

    @property
    def identity(self) -> dict[str, Any]:
        """Identity that a snapshot must share."""
        return {"kind": self.kind, "model": self.fingerprint, "dtype": str(self.dtype), **asdict(self.config)}


def _pieces(state: Any) -> Iterator[Tensor]:
    """All of a state, slot axis first: its tensors, or their shared memory."""
    return tensors_of(state) if state.memory is None else iter([state.memory])


@contextmanager
def threads_limited(threads: int | None) -> Iterator[None]:
    """Sets torch's number of threads inside the context, and restores it; None changes nothing."""
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
    """The tensor's memory as uint8, for any dtype."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
