"""Running statistics: merged they equal those of the whole, and a quiet bin keeps its variance for an hour."""

import numpy as np
import torch
from torch import nn

from streaming.layers.norm import Moments, StreamingGroupNorm, moments_of_frames, new_moments
from tests.streaming.layers.stepping import in_chunks


def all_of(x: torch.Tensor) -> Moments:
    return moments_of_frames(x).over(torch.ones(x.shape[:2], dtype=torch.bool))


def test_merged_moments_equal_those_of_the_whole() -> None:
    x = torch.randn(2, 30, 4, 5) * 3 + 7
    merged = new_moments(x, 2, 4)
    for part in x.split([1, 7, 2, 20], dim=1):
        merged = merged.merge(all_of(part))
    whole = all_of(x)
    for mine, other in ((merged.count, whole.count), (merged.mean, whole.mean), (merged.m2, whole.m2)):
        torch.testing.assert_close(mine, other)


def variance_of_sums(chunks: np.ndarray, cap: float, dtype: type) -> float:
    """Variance from plain sums over chunks (M, frames), forgotten as the moments are."""
    sums = np.zeros(3, dtype)
    for part in np.stack([np.ones_like(chunks), chunks, np.square(chunks)]).sum(2).T:  # (3,)
        sums += part
        sums *= min(dtype(1), dtype(cap) / sums[0])
    return float(sums[2] / sums[0] - np.square(sums[1] / sums[0]))


@torch.inference_mode()
def test_a_quiet_bin_keeps_its_variance_for_an_hour() -> None:
    """18,000 chunks of 20 mel frames. Sums in float64 say what is right, and in float32 how it would be lost."""
    chunks = -15 + 1e-3 * torch.randn(18_000, 20, generator=torch.Generator().manual_seed(0))
    each = all_of(chunks[..., None, None])
    moments = new_moments(torch.zeros(1), 1, 1)
    for count, mean, m2 in zip(each.count.split(1), each.mean.split(1), each.m2.split(1), strict=True):
        moments = moments.merge(Moments(count, mean, m2)).capped(3000)
    exact = variance_of_sums(chunks.double().numpy(), 3000, np.float64)
    assert abs(float(moments.m2 / moments.count) / exact - 1) < 0.01
    assert abs(float(moments.mean) + 15) < 1e-4
    assert abs(variance_of_sums(chunks.numpy(), 3000, np.float32) / exact - 1) > 1


def test_capped_statistics_follow_a_new_speaker() -> None:
    moments = new_moments(torch.zeros(1), 1, 1)
    for mean in (0.0, 5.0):
        for _ in range(300):
            moments = moments.merge(all_of(mean + torch.randn(1, 50, 1, 1))).capped(1500)
    assert abs(float(moments.mean) - 5) < 0.1


@torch.inference_mode()
def test_one_window_equals_group_norm_and_frames_that_do_not_exist_do_not_count() -> None:
    norm = nn.GroupNorm(4, 8, eps=1e-6)
    norm.weight.data.normal_()
    norm.bias.data.normal_()
    x = torch.randn(1, 12, 8)
    layer = StreamingGroupNorm(norm, prior=None)
    state = layer.new_state(1)
    y = in_chunks(lambda part, at: layer.step(part, state, at), x, [12], 1, last=9)
    torch.testing.assert_close(y, norm(x.mT).mT, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state.count, torch.tensor([[24.0]]))


@torch.inference_mode()
def test_only_committed_frames_stay() -> None:
    norm = nn.GroupNorm(4, 8, eps=1e-6)
    x = torch.randn(1, 20, 8)
    layer = StreamingGroupNorm(norm, prior=None)
    state = layer.new_state(1)
    in_chunks(lambda part, at: layer.step(part, state, at), x, [3, 5, 2, 10], 1, last=20)
    grouped = x.mT.unflatten(1, (4, 2))
    torch.testing.assert_close(state.mean, grouped.mean((2, 3)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state.m2 / state.count, grouped.var((2, 3), correction=0), atol=1e-5, rtol=1e-5)
