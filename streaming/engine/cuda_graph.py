"""A step recorded once as a CUDA graph and replayed: one launch in place of a thousand small kernels.

A graph repeats the same kernels on the same memory. So input and output stay in buffers of their own, the state is
updated in place, and a step neither waits for the device nor branches on values (a test holds it so). As in
`traced_step`, there is one of a steady step and one of any step at each batch size.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neucodec_streaming.stepper import Stepper

WARM_UP_STEPS = 3
"""Steps before the capture, in which libraries choose kernels and allocate what they keep."""
TURNS = 2
"""Steps of one graph that may be in flight, or whose output is still read."""


class Captures:
    """What the graphs of a device share: a stream, and memory, since each one's output leaves before the next runs."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)
        self.memory = torch.cuda.graph_pool_handle()


@dataclass
class StepBuffers:
    """Pinned memory of the host that one step comes from and goes to, and when it has been done."""

    x: Tensor
    rows: Tensor
    y: Tensor
    done: Any

    def is_done(self) -> bool:
        """Whether `wait` returns at once. Raises the device's error, if there is one."""
        return bool(self.done.query())

    def wait(self) -> np.ndarray:
        """The step's output. It is overwritten by the second step after it."""
        self.done.synchronize()
        return self.y.numpy()


class GraphedStep:
    """A stepper's step on one state at one batch size. Called by one thread, with no other step beside it.

    A steady step gives the chunk's output alone, (B, chunk_frames * output_hop); any other step all of it.
    """

    def __init__(
        self, stepper: Stepper, state: Any, x: Tensor, rows: Tensor, shared: Captures, *, steady: bool
    ) -> None:
        """x (B, *window_shape) and rows (3, B), slots, valid and commit, on the host: the step that is recorded."""
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
        """Where the input of the next step is put."""
        return self._turns[0]

    @torch.inference_mode()
    def launch(self) -> StepBuffers:
        """Begins the step on what is in `next` -> where its output will be."""
        buffers = self._turns.pop(0)
        self._turns.append(buffers)
        self._x.copy_(buffers.x, non_blocking=True)
        self._rows.copy_(buffers.rows, non_blocking=True)
        self._graph.replay()
        buffers.y.copy_(self._y, non_blocking=True)
        buffers.done.record()
        return buffers
