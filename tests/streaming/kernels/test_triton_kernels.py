"""Triton kernels, in its interpreter, against torch's operations: starts, endings, steady steps, and carried state."""

from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from neucodec_streaming import StreamConfig
from neucodec_streaming.kernels import native
from neucodec_streaming.layers import antialias, attention
from neucodec_streaming.layers.attention import Ring, RingView
from neucodec_streaming.layers.step import StepPlan
from tests.streaming.models import codec_of

triton_kernels = pytest.importorskip("neucodec_streaming.kernels.triton_kernels")
SLOTS = 4


@pytest.fixture(autouse=True)
def torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_loaded", lambda: None)


@pytest.fixture
def with_triton(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    with monkeypatch.context() as patch:
        for module in (antialias, attention):
            patch.setattr(module.gpu, "operations", lambda x: triton_kernels)
        yield patch


def plan_of(valid: list[int], commit: list[int], position: list[int]) -> StepPlan:
    return StepPlan(*map(torch.tensor, ([2, 0, 3][: len(valid)], valid, commit, position)))


def compare(got: list[Tensor], wanted: list[Tensor]) -> None:
    for one, other in zip(got, wanted, strict=True):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max()


def test_the_device_check_passes() -> None:
    triton_kernels.check(torch.device("cpu"))


def test_a_failed_check_reports_the_deviation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_kernels, "attend", lambda window, *_: torch.zeros(1, 10, 32))
    with pytest.raises(RuntimeError, match="attend is off"):
        triton_kernels.check(torch.device("cpu"))


@pytest.mark.parametrize("unit", [1, 5])
def test_the_activation_equals_torchs(unit: int, with_triton: pytest.MonkeyPatch) -> None:
    with_triton.setattr(triton_kernels, "SEGMENT", 16)
    module = codec_of("golden").model.acoustic_encoder.snake1
    layer = antialias.StreamingActivation(module, unit)
    torch.manual_seed(0)
    x, past = torch.randn(3, 8 * unit, layer.channels), torch.randn(SLOTS, 6, layer.channels)
    for valid, commit, position in (([8, 8, 8], [4, 4, 4], [9, 4, 30]), ([8, 5, 3], [4, 5, 3], [0, 2, 1])):
        pasts, outputs = [past.clone(), past.clone()], []
        for operations, state in ((triton_kernels, pasts[0]), (None, pasts[1])):
            with_triton.setattr(antialias.gpu, "operations", lambda x, found=operations: found)
            outputs.append(layer.step(x, state, plan_of(valid, commit, position)))
        for row, frames in enumerate(valid):
            compare([outputs[0][row, : frames * unit]], [outputs[1][row, : frames * unit]])
        compare(pasts[:1], pasts[1:])


@pytest.mark.parametrize("by_distance", [False, True])
@pytest.mark.parametrize("context", [0, 4, 40])
def test_attention_over_rings_equals_torchs(context: int, by_distance: bool, with_triton: pytest.MonkeyPatch) -> None:
    config = StreamConfig(4, 3, context)
    heads, width, frames = 2, 16, config.window_frames
    torch.manual_seed(0)
    window = torch.randn(2, frames, 3 * heads * width)
    ring = Ring(*torch.randn(2, SLOTS, context + frames, heads * width))
    bias = torch.randn(2, heads, frames, 12) if by_distance else None
    for valid, commit, position in (([7, 7], [4, 4], [50, 9]), ([7, 2], [4, 2], [0, 3])):
        rings, outputs = [deepcopy(ring), deepcopy(ring)], []
        for operations, state in ((triton_kernels, rings[0]), (None, rings[1])):
            with_triton.setattr(attention.gpu, "operations", lambda x, found=operations: found)
            view = RingView(plan_of(valid, commit, position), config, torch.float32)
            outputs.append(view.attend(state, window, width, 0.25, bias, left=8))
        for row, count in enumerate(valid):
            compare([outputs[0][row, :count]], [outputs[1][row, :count]])
        for name in ("keys", "values"):
            kept = [getattr(state, name)[:, :context] for state in rings]
            assert torch.equal(*kept)
