"""A step captured as a CUDA graph and replayed: one launch instead of a thousand small kernels.

A graph repeats the same kernels on the same memory. So input and output have fixed buffers, the state is updated in
place, and a step neither synchronises nor branches on values (which a test checks). As in `traced_step`, each batch
size has one graph of a steady step and one of any step.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neucodec_streaming.stepper import Stepper

WARM_UP_STEPS = 3
"""Steps before the capture, in which libraries choose kernels and allocate workspace."""
TURNS = 2
"""Steps of one graph that may be in flight or whose output is still read."""


class Captures:
    """A stream and memory shared by the graphs of a device: each output is copied before the next graph runs."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)
        self.memory = torch.cuda.graph_pool_handle()


@dataclass
class StepBuffers:
    """Pinned host memory for the input and output of one step, and its completion event."""

    x: Tensor
    rows: Tensor
    y: Tensor
    done: Any

    def is_done(self) -> bool:
        """Whether `wait` returns, or raises, at once."""
        try:
            return bool(self.done.query())
        except RuntimeError:
            return True

    def wait(self) -> np.ndarray:
        """The step's output. The second next step overwrites it."""
        self.done.synchronize()
        return self.y.numpy()


class GraphedStep:
    """A stepper's step on one state at one batch size. Called by one thread, without concurrent steps.

    A steady step returns only the chunk's output, (B, chunk_frames * output_hop); any other step all of it.
    """

    def __init__(
        self, stepper: Stepper, state: Any, x: Tensor, rows: Tensor, shared: Captures, *, steady: bool
    ) -> None:
        """Captures the step on x (B, *window_shape) and rows (3, B): slots, valid and commit, on the host."""
        self._x, self._rows = x.to(stepper.device), rows.to(stepper.device)
        here = torch.cuda.current_stream(stepper.device)
        shared.stream.wait_stream(here)
        with torch.cuda.stream(shared.stream):
            for _ in range(WARM_UP_STEPS):
                stepper.step(self._x, state, *self._rows, steady=steady)
        here.wait_stream(shared.stream)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile.
        with torch.cuda.graph(self._graph, shared.memory, shared.stream, capture_error_mode="thread_local"):
            y = stepper.step(self._x, state, *self._rows, steady=steady)
            self._y = y[:, : stepper.config.chunk_frames * stepper.output_hop].contiguous() if steady else y
        self._turns = [
            StepBuffers(
                x.pin_memory(),
                rows.pin_memory(),
                torch.empty(self._y.shape, dtype=self._y.dtype, pin_memory=True),
                torch.cuda.Event(),
            )
            for _ in range(TURNS)
        ]

    @property
    def next(self) -> StepBuffers:
        """The buffer for the next step's input."""
        return self._turns[0]

    @torch.inference_mode()
    def launch(self) -> StepBuffers:
        """Launches the step on the input in `next` and returns the place of its output."""
        buffers = self._turns.pop(0)
        self._turns.append(buffers)
        self._x.copy_(buffers.x, non_blocking=True)
        self._rows.copy_(buffers.rows, non_blocking=True)
        self._graph.replay()
        buffers.y.copy_(self._y, non_blocking=True)
        buffers.done.record()
        return buffers
