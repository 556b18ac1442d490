"""Convolutions over time that continue where the last chunk ended.

A layer keeps as many committed inputs as it pads on the left. Left of a stream there are zeros, right of what exists
too, as the offline model pads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streaming.layers.step import Step, advance


class StreamingConv:
    """A `Conv1d` of stride 1 (symmetric or causal) or of stride s with kernel 2s, stepped.

    `unit` is the number of input elements a frame. Symmetric and strided layers take their own left padding; a causal
    one (`causal=True`: upstream pads its input, not the layer) takes kernel - 1.
    """

    def __init__(self, conv: nn.Conv1d, unit: int = 1, causal: bool = False) -> None:
        self.conv = conv
        self.unit = unit
        self.reach = (conv.kernel_size[0] - 1) * conv.dilation[0]
        self.left = self.reach if causal else int(conv.padding[0])
        self.right = self.reach - self.left - (conv.stride[0] - 1)
        # At frame rate, on a CPU, one product over what each output reads beats the library's convolution.
        self.few_outputs = unit == conv.stride[0] and conv.groups == 1

    def new_state(self, slots: int) -> Tensor:
        """Past inputs, (slots, C, left)."""
        weight = self.conv.weight
        return weight.new_zeros(slots, self.conv.in_channels, self.left)

    def step(self, x: Tensor, past: Tensor, at: Step) -> Tensor:
        """x (B, C_in, T) -> (B, C_out, T / stride)."""
        x = x * at.exists(x.shape[2], self.unit)[:, None].to(x.dtype)
        joined = torch.cat([past[at.slots], x, x.new_zeros(*x.shape[:2], self.right)], dim=2)
        past[at.slots] = advance(joined, self.left, at, self.unit)
        return self._convolve(joined)

    def _convolve(self, x: Tensor) -> Tensor:
        """x (B, C_in, left + T + right) -> (B, C_out, T / stride)."""
        conv = self.conv
        if not self.few_outputs or x.is_cuda:
            return F.conv1d(x, conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)
        read = x.unfold(2, self.reach + 1, conv.stride[0])[..., :: conv.dilation[0]]  # (B, C_in, F, kernel)
        rows = F.linear(read.transpose(1, 2).flatten(2), conv.weight.flatten(1), conv.bias)  # (B, F, C_in * kernel)
        return rows.transpose(1, 2)  # (B, F, C_out) -> (B, C_out, F)
