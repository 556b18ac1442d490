"""Running statistics: what a normalisation over the whole recording becomes in a stream.

Moments are (count, mean, M2), merged stably (Chan, Golub and LeVeque 1983): plain sums lose the variance of a quiet mel
bin after minutes. A step normalises with prior + committed + window; only the committed part of the window stays, and
its count is capped, so that the statistics follow a new speaker.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from streaming.layers.step import Step

CAP_FRAMES = 300
"""6 s: measured (benchmarks/ablations.py) to cost the same voice next to nothing, and to follow another sooner."""


@dataclass
class Moments:
    """Count (..., 1), mean (..., G) and sum of squared deviations (..., G) of G statistics."""

    count: Tensor
    mean: Tensor
    m2: Tensor

    def over(self, mask: Tensor) -> "Moments":
        """Moments (B, F, G) of single frames, merged over those that the mask (B, F) takes: (B, G)."""
        weight = mask[..., None].to(self.mean.dtype)
        frames = weight.sum(dim=1)  # (B, 1)
        mean = (self.mean * weight).sum(dim=1) / frames.clamp(min=1)
        apart = (self.mean - mean[:, None]).square_().mul_(self.count).add_(self.m2)
        return Moments(frames * self.count, mean, apart.mul_(weight).sum(dim=1))

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both sets together; an empty side leaves the other as it is."""
        count = self.count + other.count
        share = other.count / count.clamp(min=1)
        delta = other.mean - self.mean
        mean = self.mean + delta * share
        return Moments(count, mean, self.m2 + other.m2 + delta.square() * (self.count * share))

    def capped(self, limit: float) -> "Moments":
        """The same mean and variance, weighing at most `limit`."""
        scale = (limit / self.count.clamp(min=1)).clamp(max=1.0)
        return Moments(self.count * scale, self.mean, self.m2 * scale)

    def load(self, at: Step) -> "Moments":
        """Those of each row's slot."""
        return Moments(at.load(self.count), at.load(self.mean), at.load(self.m2))

    def store(self, at: Step, new: "Moments") -> None:
        """Put each row's moments into its slot."""
        at.store(self.count, new.count)
        at.store(self.mean, new.mean)
        at.store(self.m2, new.m2)


def new_moments(like: Tensor, slots: int, groups: int) -> Moments:
    """Empty moments of `groups` statistics, float32 on the device of `like`."""
    empty = torch.zeros(slots, groups, device=like.device)
    return Moments(torch.zeros(slots, 1, device=like.device), empty, empty.clone())


def moments_of_frames(x: Tensor) -> Moments:
    """x (B, F, G, N): moments (B, F, G) of each frame, over N."""
    mean = x.mean(dim=3)
    m2 = (x - mean[..., None]).square_().sum(dim=3)
    return Moments(x.new_full((1,), x.shape[3]), mean, m2)


class StreamingGroupNorm:
    """A `GroupNorm` whose statistics run over the stream. `prior`: moments (1, G) counted in frames, or None."""

    def __init__(self, norm: nn.GroupNorm, prior: Moments | None, cap_frames: int = CAP_FRAMES) -> None:
        self.norm = norm
        self.width = norm.num_channels // norm.num_groups
        self.prior = prior and Moments(prior.count * self.width, prior.mean, prior.m2 * self.width)
        self.cap = cap_frames * self.width

    def new_state(self, slots: int) -> Moments:
        return new_moments(self.norm.weight, slots, self.norm.num_groups)

    def step(self, x: Tensor, state: Moments, at: Step) -> Tensor:
        """x (B, F, C) -> (B, F, C)."""
        frames = x.shape[1]
        finite = x.float()
        if at.edges:  # what does not exist stays finite
            finite = finite.masked_fill(~at.exists(frames)[..., None], 0.0)
        each = moments_of_frames(finite.unflatten(2, (-1, self.width)))  # (B, F, C) -> (B, F, G, C / G)
        committed = state.load(at)
        all_now = committed.merge(each.over(at.exists(frames)))
        if self.prior is not None:
            all_now = self.prior.merge(all_now)
        state.store(at, committed.merge(each.over(at.commits(frames))).capped(self.cap))
        variance = all_now.m2 / all_now.count.clamp(min=1)
        scale = self._of_channels(torch.rsqrt(variance + self.norm.eps)) * self.norm.weight
        deviation = finite - self._of_channels(all_now.mean)
        return torch.addcmul(self.norm.bias, deviation, scale).to(x.dtype)

    def _of_channels(self, x: Tensor) -> Tensor:
        """Of each group (B, G) -> of each channel (B, 1, C)."""
        return x[:, None, :, None].expand(-1, -1, -1, self.width).flatten(2)
