"""A step recorded once as a CUDA graph and replayed: one launch in place of a thousand small kernels.

A graph repeats the same kernels on the same memory. So input and output stay in buffers of their own, the state is
updated in place, and a step neither waits for the device nor branches on values (a test holds it so).
"""

from typing import Any

import torch
from torch import Tensor

from neucodec_streaming.stepper import Stepper

WARM_UP_STEPS = 3
"""Steps before the capture, in which libraries choose kernels and allocate what they keep."""


class Captures:
    """What the graphs of a device share: a stream, and memory, since each one's output leaves before the next runs."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)
        self.memory = torch.cuda.graph_pool_handle()


class GraphedStep:
    """A stepper's step on one state at one batch size. Called by one thread, with no other step beside it."""

    def __init__(self, stepper: Stepper, state: Any, x: Tensor, rows: Tensor, shared: Captures) -> None:
        """x (B, *window_shape) and at (3, B), slots, valid and commit, on the host: a step that changes nobody."""
        self._x_host, self._rows_host = x.pin_memory(), rows.pin_memory()
        self._x, self._rows = x.to(stepper.device), rows.to(stepper.device)
        here = torch.cuda.current_stream(stepper.device)
        shared.stream.wait_stream(here)
        with torch.cuda.stream(shared.stream):
            for _ in range(WARM_UP_STEPS):
                stepper.step(self._x, state, *self._rows)
        here.wait_stream(shared.stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=shared.memory, stream=shared.stream):
            self._y = stepper.step(self._x, state, *self._rows)
        self._y_host = torch.empty(self._y.shape, dtype=self._y.dtype, pin_memory=True)

    def __call__(self, x: Tensor, rows: Tensor) -> Tensor:
        """The step on other x and at -> its output, on the host too."""
        self._x_host.copy_(x)
        self._rows_host.copy_(rows)
        self._x.copy_(self._x_host, non_blocking=True)
        self._rows.copy_(self._rows_host, non_blocking=True)
        self._graph.replay()
        self._y_host.copy_(self._y, non_blocking=True)
        torch.cuda.current_stream(self._x.device).synchronize()
        return self._y_host.clone()
