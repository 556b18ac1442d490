"""A step is what a CUDA graph can replay: it never waits for the device, and no shape or branch follows from values.

Proved without a GPU: on the meta device there are no values to look at, and a step traced as a list of operations is
replayed on other input.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from streaming import StreamConfig
from streaming.codec import Codec
from streaming.layers.step import tensors_of
from streaming.stepper import Stepper
from tests.streaming.models import MODELS, codec_of

CONFIG = StreamConfig(chunk_frames=5, lookahead_frames=5, context_frames=20)
ROWS, SLOTS = 3, 5

every_kind = pytest.mark.parametrize("kind", ["encode", "decode"])


class OneDevice(TorchDispatchMode):
    """Refuses operations that tensors of two devices take part in: copies between host and device among them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        devices = {leaf.device.type for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)}
        assert len(devices) < 2, f"{func} takes part on {devices}"
        return result


def stepper_of(codec: Codec, kind: str) -> Stepper:
    return codec.encoder(CONFIG) if kind == "encode" else codec.decoder(CONFIG)


def some_input(stepper: Stepper, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (ROWS, *stepper.window_shape)
    if stepper.kind == "decode":
        return torch.randint(0, 65_536, shape, generator=generator)
    return 0.1 * torch.randn(shape, generator=generator)


@pytest.mark.parametrize("model", MODELS)
@every_kind
def test_a_step_reads_no_value_back_and_copies_nothing_from_the_host(model: str, kind: str) -> None:
    """On "meta", values, shapes that follow from values and copies to the host are errors."""
    codec = Codec("meta", deepcopy(codec_of(model).model).to("meta"), codec_of(model)._priors)
    codec.fingerprint = "weights without values have none"
    stepper = stepper_of(codec, kind)
    x = some_input(stepper, 0).to("meta")
    at = torch.zeros(3, ROWS, dtype=torch.int64, device="meta")
    state = stepper.new_state(SLOTS)
    stepper.step(x, state, *at)  # the first step brings constants to the device, as before a capture
    with OneDevice():
        assert stepper.step(x, state, *at).device.type == "meta"


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
def test_what_a_graph_cannot_replay_does_not_pass_there(step: Callable[[Tensor], Any]) -> None:
    with pytest.raises((RuntimeError, NotImplementedError, AssertionError)), OneDevice():
        step(torch.zeros(3, device="meta"))


@every_kind
@pytest.mark.slow
@torch.inference_mode()
def test_a_step_replayed_on_other_input_has_the_bits_of_the_step(kind: str) -> None:
    """The trace holds operations on fixed tensors only, the state among them, as a graph does."""
    stepper = stepper_of(codec_of("golden"), kind)
    state, wanted_state = stepper.new_state(SLOTS), stepper.new_state(SLOTS)
    idle = torch.tensor([[SLOTS - 1] * ROWS, [0] * ROWS, [0] * ROWS])
    stepper.step(some_input(stepper, 0), stepper.new_state(SLOTS), *idle)  # what is cached is computed for real
    trace = make_fx(
        lambda x, *at: stepper.step(x, state, *at), tracing_mode="fake", _allow_non_fake_inputs=True
    )(some_input(stepper, 0), *idle)  # fmt: skip
    steps = (
        [[0, 1, 2], [10, 10, 10], [5, 5, 5]],
        [[2, 0, 4], [10, 10, 0], [5, 5, 0]],
        [[1, 3, 0], [10, 10, 7], [5, 5, 7]],
    )
    for seed, at in enumerate(steps):
        x = some_input(stepper, seed)
        wanted = stepper.step(x, wanted_state, *torch.tensor(at))
        assert torch.equal(trace(x, *torch.tensor(at)), wanted)
        pairs = zip(tensors_of(state), tensors_of(wanted_state), strict=True)
        assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
