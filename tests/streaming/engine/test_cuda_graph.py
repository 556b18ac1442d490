"""A CUDA graph can replay every step: it never waits for the device, and no shape or branch depends on values.

Proved without a GPU, on the meta device, where tensors have no values and a step takes the same path as on CUDA.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from neucodec_streaming import StreamConfig
from neucodec_streaming.codec import Codec
from neucodec_streaming.layers.step import tensors_of
from neucodec_streaming.stepper import Stepper
from tests.streaming.models import FLOAT_MODELS, codec_of

CONFIG = StreamConfig(chunk_frames=5, lookahead_frames=5, context_frames=20)
ROWS, SLOTS = 3, 5

every_model = pytest.mark.parametrize("model", FLOAT_MODELS)  # int8 is for CPUs
every_kind = pytest.mark.parametrize("kind", ["encode", "decode"])


class Operations(TorchDispatchMode):
    """Records operations; refuses copies between devices, the host included."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = tree_leaves((args, kwargs))
        devices = {leaf.device.type for leaf in (*given, *tree_leaves(result)) if isinstance(leaf, Tensor)}
        assert len(devices) < 2, f"{func} takes part on {devices}"
        self.calls.append(
            (func, *((leaf.shape, leaf.stride()) if isinstance(leaf, Tensor) else leaf for leaf in given))
        )
        return result


@pytest.fixture
def stepper(model: str, kind: str) -> Stepper:
    codec = Codec("meta", deepcopy(codec_of(model).model).to("meta"), codec_of(model).priors)
    codec.fingerprint = "weights without values have none"
    return codec.encoder(CONFIG) if kind == "encode" else codec.decoder(CONFIG)


@every_model
@every_kind
def test_every_step_runs_the_same_device_operations_on_the_same_state(stepper: Stepper) -> None:
    state = stepper.new_state(SLOTS)
    tensors = list(tensors_of(state))
    dtype = torch.float32 if stepper.kind == "encode" else torch.int64
    x = torch.zeros(ROWS, *stepper.window_shape, dtype=dtype, device="meta")
    rows = torch.zeros(3, ROWS, dtype=torch.int64, device="meta")
    stepper.step(x, state, *rows)  # the first step copies constants to the device, as before a capture
    with Operations() as first:
        stepper.step(x, state, *rows)
    with Operations() as second:
        stepper.step(x, state, *rows)
    assert len(first.calls) > 500 and second.calls == first.calls
    assert all(one is other for one, other in zip(tensors_of(state), tensors, strict=True))


@pytest.mark.parametrize(
    "step",
    [
        lambda x: x.sum().item(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.tolist(),
        lambda x: bool(x.any()),
        lambda x: x.cpu(),
        lambda x: torch.ones(3).to(x.device),
    ],
)
def test_operations_that_a_graph_cannot_replay_raise(step: Callable[[Tensor], Any]) -> None:
    with pytest.raises((RuntimeError, NotImplementedError, AssertionError)), Operations():
        step(torch.zeros(3, device="meta"))
