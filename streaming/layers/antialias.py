"""Anti-aliased SnakeBeta, BigCodec's activation, stepped: upsample by two, activate, downsample.

Both filters are polyphase. Even and odd samples at the double rate are the two rows of an image, so each filter is one
depthwise convolution of 2 x 7 taps. The offline model replicates the edges of the input and of the activated signal;
both are reproduced here.

The activation y = u + sin(alpha u)^2 / beta is computed on beta u. The filters apply and remove that scale, which saves
a pass over the signal. Fused kernels replace all of it where available (kernels/native.py, kernels/gpu.py).
"""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from neucodec_streaming.kernels import gpu, native
from neucodec_streaming.kernels.packed import LinearFn, make_conv
from neucodec_streaming.layers.step import StepPlan, advance

TAPS = 7
SIDE = TAPS // 2
"""Samples on each side that one filter reads."""
REACH = 2 * SIDE
"""Context on each side, in inputs: that of the upsampling and the downsampling filter."""


def up_taps(filter: Tensor) -> Tensor:
    """Filter (12,) -> (2, 7): weights of inputs t - 3 .. t + 3 in the double-rate samples 2t and 2t + 1."""
    taps = filter.new_zeros(2, TAPS)
    taps[0, :6] = 2 * filter[1::2].flip(0)
    taps[1, 1:] = 2 * filter[0::2].flip(0)
    return taps


def down_taps(filter: Tensor) -> Tensor:
    """Filter (12,) -> (2, 7): weights of the even and the odd samples of t - 3 .. t + 3 in output t."""
    taps = filter.new_zeros(2, TAPS)
    taps[0, 1:] = filter[1::2]
    taps[1, :6] = filter[0::2]
    return taps


class StreamingActivation:
    """One `NeuCodecAntiAliasedActivation1d`, stepped; `unit` elements a frame."""

    def __init__(self, activation: Any, unit: int) -> None:
        self.unit = unit
        self.right = REACH
        snake = activation.act
        self.channels = len(snake.alpha)
        alpha = snake.alpha.detach().double().exp()
        beta = snake.beta.detach().double().exp() + snake.no_div_by_zero
        up = up_taps(activation.upsample.filter.flatten().double())
        down = down_taps(activation.downsample.filter.flatten().double())
        self.native = native.operations(snake.alpha)
        self.exact = up, down, alpha, 1 / beta  # float64, so that the products are rounded once
        self.constants = [x.to(snake.alpha.dtype) for x in self.exact]
        self.in_float32 = [x.float() for x in self.exact]
        self.alpha_by_beta = (alpha / beta).to(snake.alpha.dtype)
        self._alphas: dict[int, Tensor] = {}

    @cached_property
    def _filters(self) -> tuple[LinearFn, LinearFn]:
        """(B, 1, T, C) -> (B, 2, T - 6, C), beta times the signal at double rate, and back."""
        up, down, _, by_beta = self.exact
        up = up.flip(0)  # `padded_rows` reverses the rows of the taps
        dtype = self.alpha_by_beta.dtype
        return depthwise(up, 1 / by_beta, dtype, padded_rows=1), depthwise(down, by_beta, dtype)

    def _alpha_of(self, samples: int) -> Tensor:
        """`alpha_by_beta` repeated for each sample, (samples, C); expanding it each time is slow with few channels."""
        if samples not in self._alphas:
            self._alphas[samples] = self.alpha_by_beta.expand(samples, -1).contiguous()
        return self._alphas[samples]

    def new_state(self, slots: int) -> Tensor:
        """Past inputs, (slots, REACH, C)."""
        return self.alpha_by_beta.new_zeros(slots, REACH, self.channels)

    def step(self, x: Tensor, past: Tensor, plan: StepPlan) -> Tensor:
        """x (B, T, C) -> (B, T, C)."""
        if self.native is not None:
            return self.native.snake(
                x, past, plan.slots, plan.position, plan.valid, plan.commit, self.unit, *self.constants
            )
        if (operations := gpu.operations(x)) is not None:
            rows = plan.slots, plan.position, plan.valid, plan.commit
            return operations.snake(x, past, *rows, self.unit, *self.in_float32)
        last = x.narrow(1, x.shape[1] - 1, 1).expand(-1, REACH, -1)
        joined = torch.cat([self._start(x, past, plan), x, last], dim=1)
        plan.store(past, advance(joined, REACH, plan, self.unit))
        if plan.edges:
            beyond = REACH + plan.beyond(REACH, self.unit)
            plan.write(joined, beyond, plan.read(joined, beyond[:, :1] - 1))
        up, down = self._filters
        doubled = up(joined.unsqueeze(1))  # (B, 2, T + 6, C)
        sine = (doubled * self._alpha_of(doubled.shape[2])).sin_()
        doubled.addcmul_(sine, sine)
        self._hold(doubled, plan)
        return down(doubled).squeeze(1)

    def _start(self, x: Tensor, past: Tensor, plan: StepPlan) -> Tensor:
        """The inputs before x, (B, REACH, C); before the stream's start, its first input."""
        start = plan.load(past)
        return torch.where((plan.position == 0)[:, None, None], x[:, :1], start) if plan.edges else start

    def _hold(self, doubled: Tensor, plan: StepPlan) -> None:
        """Replicates the stream's first and last double-rate sample beyond its edges; element 0 is sample pair -3."""
        end = doubled.shape[2] - SIDE
        doubled.narrow(2, end, SIDE).copy_(doubled.narrow(2, end - 1, 1).narrow(1, 1, 1))
        if not plan.edges:
            return
        even, odd = doubled.unbind(1)
        before = plan.before(SIDE, self.unit)
        first = plan.read(even, before.sum(dim=1, keepdim=True))[:, None]  # (B, 1, 1, C)
        doubled[:, :, :SIDE] = torch.where(before[:, None, :, None], first, doubled[:, :, :SIDE])
        beyond = SIDE + plan.beyond(SIDE, self.unit)
        last = plan.read(odd, beyond[:, :1] - 1)  # (B, 1, C)
        for phase in (even, odd):
            plan.write(phase, beyond, last)


def depthwise(taps: Tensor, scale: Tensor, dtype: torch.dtype, padded_rows: int = 0) -> LinearFn:
    """Each channel convolved with taps (2, 7) times its scale (C,), over images (B, R, T, C) of that dtype."""
    weight = (taps * scale[:, None, None, None]).to(dtype)  # (C, 1, 2, 7)
    return make_conv(weight, None, groups=len(scale), padded_rows=padded_rows)
