"""Anti-aliased SnakeBeta: twice the rate, activate, back; BigCodec's activation, stepped.

Both filters are polyphase, and run as matrix products over blocks: each block of outputs is a small Toeplitz matrix
times the inputs that it reads. On a CPU that is several times faster than the grouped convolutions it equals. The
offline model replicates the edge twice, the input's and the activated signal's at double rate; both edges are kept
here.
"""

from typing import Any

import torch
from torch import Tensor

from streaming.layers.step import Step, advance

REACH = 6
"""Inputs on each side that are looked at: 3 for the way up, 3 for the way down."""
BLOCK = 16


def up_matrix(taps: Tensor) -> Tensor:
    """Filter (12,) -> (BLOCK + 6, 2 * BLOCK): inputs t - 3 .. t + 3 of a block to double-rate samples 2t, 2t + 1."""
    matrix = taps.new_zeros(BLOCK + 6, 2 * BLOCK)
    for t in range(BLOCK):
        for i in range(-3, 3):
            matrix[t + 3 + i, 2 * t] = 2 * taps[5 - 2 * i]
            matrix[t + 4 + i, 2 * t + 1] = 2 * taps[4 - 2 * i]
    return matrix


def down_matrix(taps: Tensor) -> Tensor:
    """Filter (12,) -> (2 * BLOCK + 10, BLOCK): double-rate samples 2t - 5 .. 2t + 6 of a block to its outputs t."""
    matrix = taps.new_zeros(2 * BLOCK + 10, BLOCK)
    for t in range(BLOCK):
        matrix[2 * t : 2 * t + 12, t] = taps
    return matrix


class StreamingActivation:
    """One `NeuCodecAntiAliasedActivation1d`, stepped; `unit` elements a frame."""

    def __init__(self, activation: Any, unit: int) -> None:
        self.unit = unit
        snake = activation.act
        self.alpha = snake.alpha.detach().exp()[:, None]
        self.inverse_beta = (1.0 / (snake.beta.detach().exp() + snake.no_div_by_zero))[:, None]
        self.up = up_matrix(activation.upsample.filter.flatten().to(snake.alpha.dtype))
        self.down = down_matrix(activation.downsample.filter.flatten().to(snake.alpha.dtype))

    def new_state(self, slots: int) -> Tensor:
        """Past inputs, (slots, C, REACH)."""
        return self.alpha.new_zeros(slots, len(self.alpha), REACH)

    def step(self, x: Tensor, past: Tensor, at: Step) -> Tensor:
        """x (B, C, T) -> (B, C, T)."""
        length = x.shape[2]
        end = at.valid * self.unit
        x = hold_after(x, end)
        start = past[at.slots]
        start = torch.where((at.position == 0)[:, None, None], x[..., :1], start)
        joined = torch.cat([start, x], dim=2)
        past[at.slots] = advance(joined, REACH, at, self.unit)
        blocks = -(-length // BLOCK)
        right = (blocks + 1) * BLOCK - length  # the way down reads 3 elements past the last block
        doubled = self._up(torch.cat([joined, x[..., -1:].expand(-1, -1, right)], dim=2))
        doubled = doubled + self.inverse_beta * torch.sin(doubled * self.alpha).square()
        doubled = hold_after(doubled, 2 * end + REACH)
        doubled[..., :REACH] = self._held_start(doubled[..., : REACH + 1], at)
        return self._down(doubled, blocks)[..., :length]

    def _up(self, x: Tensor) -> Tensor:
        """x (B, C, 6 + N) -> (B, C, 2 N), N a multiple of BLOCK; element 0 is double-rate sample -6."""
        return blockwise(x, BLOCK, self.up)

    def _down(self, doubled: Tensor, blocks: int) -> Tensor:
        """doubled (B, C, ...) from double-rate sample -6 on -> (B, C, blocks * BLOCK)."""
        return blockwise(doubled[..., 1 : 11 + 2 * BLOCK * blocks], 2 * BLOCK, self.down)

    def _held_start(self, head: Tensor, at: Step) -> Tensor:
        """Double-rate samples left of the stream's start repeat its first: head (B, C, 7) from -6 on -> (B, C, 6)."""
        first = (REACH - 2 * self.unit * at.position).clamp(min=0)[:, None, None]
        before = torch.arange(REACH, device=head.device) < first
        return torch.where(before, head.gather(2, first.expand(-1, head.shape[1], 1)), head[..., :REACH])


def blockwise(x: Tensor, stride: int, matrix: Tensor) -> Tensor:
    """x (B, C, T) in overlapping blocks of len(matrix), each times the matrix, end to end: (B, C, blocks * columns)."""
    blocks = x.unfold(2, len(matrix), stride)  # (B, C, blocks, rows)
    return (blocks.reshape(-1, len(matrix)) @ matrix).view(*x.shape[:2], -1)


def hold_after(x: Tensor, end: Tensor) -> Tensor:
    """x (B, C, T) with everything from element `end` (B,) on replaced by the last that exists."""
    last = (end - 1).clamp(0, x.shape[2] - 1)[:, None, None].expand(-1, x.shape[1], 1)
    exists = torch.arange(x.shape[2], device=x.device) < end[:, None, None]
    return torch.where(exists, x, x.gather(2, last))
