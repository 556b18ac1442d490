"""Running statistics: the streaming form of a normalisation over the whole recording.

Mean and variance are pooled over a prior, the committed past and the window, each weighted by its number of frames. The
pool works on means and variances of single frames, since plain sums lose the variance of a quiet mel bin after minutes.
Only the committed part of the window is kept, and the weight of the past is capped, so that the statistics follow a new
speaker.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neucodec_streaming.kernels import native
from neucodec_streaming.layers.step import StepPlan

CAP_FRAMES = 300
"""6 s: costs a constant voice next to nothing and adapts to a new one sooner (`benchmarks.fidelity`)."""


@dataclass
class Moments:
    """Mean and variance, each (..., G), of G statistics."""

    mean: Tensor
    variance: Tensor

    def load(self, plan: StepPlan) -> "Moments":
        """The moments of each row's slot."""
        return Moments(plan.load(self.mean), plan.load(self.variance))

    def store(self, plan: StepPlan, new: "Moments") -> None:
        """Put each row's moments into its slot."""
        plan.store(self.mean, new.mean)
        plan.store(self.variance, new.variance)


class PooledMoments:
    """The parts of a step's statistics: the prior (B or 1, G), the past (B, G) and each element (B, T, G)."""

    def __init__(self, prior: Moments, past: Moments, each: Moments) -> None:
        self._mean = past.mean
        # Differences to the past, so that averaging over minutes loses no bits.
        self._apart = _joined(prior.mean, past.mean, each.mean) - past.mean.unsqueeze(1)
        self._variance = _joined(prior.variance, past.variance, each.variance)

    def pooled(self, weights: Tensor) -> Moments:
        """Pooled moments (B, G), each part weighted by its share (B, 2 + T, 1)."""
        mean = (self._apart * weights).sum(dim=1)
        apart = (self._apart - mean.unsqueeze(1)).square_().add_(self._variance).mul_(weights)
        return Moments(self._mean + mean, apart.sum(dim=1))


def _joined(prior: Tensor, past: Tensor, each: Tensor) -> Tensor:
    return torch.cat([prior.unsqueeze(1).expand(len(each), -1, -1), past.unsqueeze(1), each], dim=1)


def new_moments(like: Tensor, slots: int, groups: int) -> Moments:
    """Empty moments of `groups` statistics, float32 on the device of `like`."""
    empty = torch.zeros(slots, groups, device=like.device)
    return Moments(empty, empty.clone())


def moments_of_frames(x: Tensor) -> Moments:
    """x (B, F, G, N): moments (B, F, G) of each frame, over N."""
    mean = x.mean(dim=3)
    return Moments(mean, (x - mean.unsqueeze(3)).square_().mean(dim=3))


class PoolingWeights:
    """Weights of the prior, the past and each element of the window in a step; the same for all norms of a branch.

    `current` (B, 2 + T, 1) weighs the moments that this step normalises with, `carried` those that the state keeps,
    without the prior. `frames` (B, 1): frames in the current moments. `frames_seen` (slots, 1), float32: frames in the
    past; updated. `length` elements, `unit` of them a frame.
    """

    def __init__(
        self, plan: StepPlan, frames_seen: Tensor, length: int, prior_frames: float, cap_frames: float, unit: int = 1
    ) -> None:
        self.plan = plan
        past = plan.load(frames_seen)
        prior = torch.full_like(past, prior_frames)
        self.frames, self.current = _pooling_weights(prior, past, plan.exists(length, unit) / unit)
        kept_frames, self.carried = _pooling_weights(torch.zeros_like(past), past, plan.commits(length, unit) / unit)
        plan.store(frames_seen, kept_frames.clamp(max=cap_frames))


def _pooling_weights(prior: Tensor, past: Tensor, elements: Tensor) -> tuple[Tensor, Tensor]:
    """Frames of the prior and the past (B, 1) and of each element (B, T) -> total (B, 1), and each part's share."""
    frames = torch.cat([prior, past, elements], dim=1)
    total = frames.sum(dim=1, keepdim=True)
    return total, (frames / total.clamp(min=1e-9))[..., None]


class StreamingGroupNorm:
    """A `GroupNorm` whose statistics run over the stream. `prior`: moments (1, G), or None."""

    def __init__(self, norm: nn.GroupNorm, prior: Moments | None) -> None:
        self.norm = norm
        self.width = norm.num_channels // norm.num_groups
        self.prior = prior or new_moments(norm.weight, 1, norm.num_groups)
        self.native = native.operations(norm.weight)

    def new_state(self, slots: int) -> Moments:
        return new_moments(self.norm.weight, slots, self.norm.num_groups)

    def step(self, x: Tensor, state: Moments, weights: PoolingWeights) -> Tensor:
        """x (B, F, C) -> (B, F, C)."""
        plan, norm = weights.plan, self.norm
        if self.native is not None:
            moments = (state.mean, state.variance, plan.slots, plan.valid, weights.current, weights.carried)
            prior = self.prior.mean, self.prior.variance
            return self.native.group_norm(x, *moments, *prior, norm.weight, norm.bias, norm.eps)
        finite = x.float()
        if plan.edges:  # padding stays finite
            finite = finite.masked_fill(~plan.exists(x.shape[1])[..., None], 0.0)
        each = moments_of_frames(finite.unflatten(2, (-1, self.width)))  # (B, F, C) -> (B, F, G, C / G)
        pooled_from = PooledMoments(self.prior, state.load(plan), each)
        state.store(plan, pooled_from.pooled(weights.carried))
        now = pooled_from.pooled(weights.current)
        scale = self._of_channels(torch.rsqrt(now.variance + norm.eps)) * norm.weight
        return torch.addcmul(norm.bias, finite - self._of_channels(now.mean), scale).to(x.dtype)

    def _of_channels(self, x: Tensor) -> Tensor:
        """Of each group (B, G) -> of each channel (B, 1, C)."""
        return x.unsqueeze(1).unsqueeze(3).expand(-1, -1, -1, self.width).flatten(2)


class RMSNorm:
    """An RMSNorm over channels: one operation where there is one, else upstream's several."""

    def __init__(self, norm: Any) -> None:
        self.norm = norm
        self.native = native.operations(norm.weight)

    def __call__(self, x: Tensor) -> Tensor:
        """x (..., C) -> (..., C)."""
        if self.native is None:
            return self.norm(x)
        return self.native.rms_norm(x, self.norm.weight, self.norm.variance_epsilon)
