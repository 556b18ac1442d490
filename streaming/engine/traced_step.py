"""A CPU step recorded once and replayed: the same operations and bits, without Python.

A step is hundreds of operations. Issuing them from Python takes a third of a small batch's time and holds the
interpreter's lock, which other workers in the process need too. Replaying a TorchScript trace takes the lock once a
step. There are two kinds of traces: of a steady step, in which every row has all its frames, commits a chunk and is
past its stream's start; and of any step, which includes the operations for starts and ends and takes half as long
again.
"""

import warnings
from collections.abc import Callable
from copy import copy
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from neucodec_streaming.layers.step import StepPlan, tensors_of
from neucodec_streaming.stepper import Stepper


class TracedStep:
    """A stepper's step on one state at one batch size."""

    def __init__(
        self, stepper: Stepper, state: Any, x: Tensor, rows: Tensor, packed: tuple[Tensor, ...], steady: bool
    ) -> None:
        """Records a step, `steady` or not, on x (B, *window_shape) and rows (3, B): slots, valid and commit. Changes no
        stream.

        `packed` is the result of `packed_weights`. Raises if PyTorch cannot record.
        """

        def step(x: Tensor, rows: Tensor, *_: Tensor) -> Tensor:
            slots, valid, commit = (rows[0], *constants) if steady else rows.unbind()
            position = state.position[slots]
            y = stepper.compute(x, state, StepPlan(slots, valid, commit, position, chunk))
            state.position[slots] = position + commit
            return y

        constants = rows[1].clone(), rows[2].clone()
        chunk = stepper.config.chunk_frames if steady else None
        with torch.inference_mode():
            # All tensors are inputs of the trace: states are exchanged (`on`), and packed weights cannot be constants.
            self._packed = packed
            self._others = (*tensors_of(state), *packed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that tracing is deprecated, and that shapes become constants
                self._graph = torch.jit.trace(step, (x, rows, *self._others), check_trace=False)
            _simplify(self._graph.graph)
        state = None  # else `step`, which the trace holds, would keep the state alive
        self(x, rows)

    def on(self, state: Any) -> "TracedStep":
        """The same step on another state with as many slots."""
        other = copy(self)
        other._others = (*tensors_of(state), *self._packed)
        return other

    @torch.inference_mode()
    def __call__(self, x: Tensor, rows: Tensor) -> Tensor:
        with torch.jit.optimized_execution(False):  # no gain here, and it would keep a second copy
            return self._graph(x, rows, *self._others)


def _simplify(graph: Any) -> None:
    """Folds everything that depends on no input, such as sizes: most of the nodes."""
    passes: Any = torch._C
    passes._jit_pass_inline(graph)
    passes._jit_pass_peephole(graph, False)  # sizes are those of this trace
    passes._jit_pass_constant_propagation(graph)
    passes._jit_pass_dce(graph)
    passes._jit_pass_constant_pooling(graph)
    nodes = list(graph.nodes())
    for node in nodes[1:]:
        node.copyMetadata(nodes[0])  # else each node keeps its own Python stack trace


def packed_weights(step: Callable[[], object]) -> tuple[Tensor, ...]:
    """Calls `step` and returns every weight that its operations got in oneDNN's own layout."""
    with _PackedWeights() as packed:
        step()
    return tuple(packed.seen.values())


class _PackedWeights(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for argument in args:
            if isinstance(argument, Tensor) and argument.is_mkldnn:
                self.seen[id(argument)] = argument
        return func(*args, **(kwargs or {}))
