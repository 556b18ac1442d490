"""Running statistics: pooled they equal those of the whole, and a quiet bin keeps its variance for an hour."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from neucodec_streaming.layers.norm import (
    Moments,
    PooledMoments,
    PoolingWeights,
    StreamingGroupNorm,
    moments_of_frames,
    new_moments,
)
from neucodec_streaming.layers.step import StepPlan
from tests.streaming.layers.stepping import in_chunks

pytestmark = pytest.mark.usefixtures("operations")


def running(chunks: torch.Tensor, cap: float) -> Iterator[tuple[float, Moments]]:
    """Frame count and moments after each of the chunks (M, frames, G), all of them committed."""
    frames_seen, state = torch.zeros(1, 1), new_moments(chunks, 1, chunks.shape[2])
    for number, chunk in enumerate(chunks):
        length = len(chunk)
        plan = StepPlan(*(torch.tensor([value]) for value in (0, length, length, number * length)))
        weights = PoolingWeights(plan, frames_seen, length, 0.0, cap)
        each = Moments(chunk[None], torch.zeros_like(chunk)[None])
        state.store(
            plan, PooledMoments(new_moments(chunk, 1, chunk.shape[1]), state.load(plan), each).pooled(weights.carried)
        )
        yield frames_seen.item(), state


def test_moments_of_chunks_add_up_to_those_of_the_whole() -> None:
    x = torch.randn(10, 3, 4) * 3 + 7
    *_, (frames_seen, moments) = running(x, cap=1000)
    whole = x.flatten(0, 1)
    assert frames_seen == 30
    torch.testing.assert_close(moments.mean[0], whole.mean(0))
    torch.testing.assert_close(moments.variance[0], whole.var(0, correction=0))


def test_the_moments_of_a_frame_are_those_of_its_values() -> None:
    x = torch.randn(2, 12, 4, 5) * 3 + 7
    each = moments_of_frames(x)
    torch.testing.assert_close(each.mean, x.mean(3))
    torch.testing.assert_close(each.variance, x.var(3, correction=0))


def test_the_prior_has_the_weight_of_its_frames_and_is_not_carried_over() -> None:
    plan = StepPlan(*(torch.tensor([value]) for value in (0, 4, 2, 0)))
    frames_seen = torch.zeros(1, 1)
    weights = PoolingWeights(plan, frames_seen, 5, prior_frames=12.0, cap_frames=300)
    torch.testing.assert_close(weights.current[0, :, 0], torch.tensor([12.0, 0, 1, 1, 1, 1, 0]) / 16)
    torch.testing.assert_close(weights.carried[0, :, 0], torch.tensor([0.0, 0, 1, 1, 0, 0, 0]) / 2)
    assert weights.frames.item() == 16 and frames_seen.item() == 2


def variance_of_sums(chunks: np.ndarray, cap: float, dtype: type) -> float:
    """Variance from plain sums over chunks (M, frames), with the same forgetting as the moments."""
    sums = np.zeros(3, dtype)
    for part in np.stack([np.ones_like(chunks), chunks, np.square(chunks)]).sum(2).T:  # (3,)
        sums += part
        sums *= min(dtype(1), dtype(cap) / sums[0])
    return float(sums[2] / sums[0] - np.square(sums[1] / sums[0]))


@torch.inference_mode()
def test_a_quiet_bin_keeps_its_variance_for_an_hour() -> None:
    """18,000 chunks of 20 mel frames: float64 sums are the reference, and float32 sums show the loss of precision."""
    chunks = -15 + 1e-3 * torch.randn(18_000, 20, generator=torch.Generator().manual_seed(0))
    *_, (_, moments) = running(chunks[..., None], cap=3000)
    exact = variance_of_sums(chunks.double().numpy(), 3000, np.float64)
    assert abs(float(moments.variance) / exact - 1) < 0.01
    assert abs(float(moments.mean) + 15) < 1e-4
    assert abs(variance_of_sums(chunks.numpy(), 3000, np.float32) / exact - 1) > 1


def test_capped_statistics_follow_a_new_speaker() -> None:
    levels = torch.tensor([0.0, 5.0]).repeat_interleave(300)
    *_, (frames_seen, moments) = running(levels[:, None, None] + torch.randn(600, 50, 1), cap=1500)
    assert frames_seen == 1500
    assert abs(float(moments.mean) - 5) < 0.1


def stepped(layer: StreamingGroupNorm, x: torch.Tensor, chunks: list[int], last: int) -> tuple[torch.Tensor, Moments]:
    """Output (1, F, C) of a layer over x in chunks, and its final state."""
    state, frames_seen = layer.new_state(1), torch.zeros(1, 1)

    def step(part: torch.Tensor, plan: StepPlan) -> torch.Tensor:
        return layer.step(part, state, PoolingWeights(plan, frames_seen, part.shape[1], 0.0, 300))

    return in_chunks(step, x, chunks, 1, last=last), state


@pytest.mark.parametrize("channels", [8, 32, 64, 96])
@torch.inference_mode()
def test_one_window_equals_group_norm_and_padding_frames_do_not_count(channels: int) -> None:
    norm = nn.GroupNorm(4, channels, eps=1e-6)
    norm.weight.data.normal_()
    norm.bias.data.normal_()
    x = torch.randn(1, 12, channels)
    y, _ = stepped(StreamingGroupNorm(norm, prior=None), x, [12], last=9)
    torch.testing.assert_close(y, norm(x.mT).mT, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_only_committed_frames_are_carried_over() -> None:
    norm = nn.GroupNorm(4, 8, eps=1e-6)
    x = torch.randn(1, 20, 8)
    _, state = stepped(StreamingGroupNorm(norm, prior=None), x, [3, 5, 2, 10], last=20)
    grouped = x.mT.unflatten(1, (4, 2))
    torch.testing.assert_close(state.mean, grouped.mean((2, 3)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state.variance, grouped.var((2, 3), correction=0), atol=1e-5, rtol=1e-5)
