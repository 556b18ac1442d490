"""Convolutions over time that continue where the last chunk ended.

A layer keeps as many committed inputs as it pads on the left. Left of a stream there are zeros, right of what exists
too, as the offline model pads.
"""

import torch
from torch import Tensor

from streaming.layers.packed import ChannelsLastConv
from streaming.layers.step import Step, advance, write


class StreamingConv:
    """A convolution of stride 1 (symmetric or causal) or of stride s with kernel 2s, stepped.

    `unit` is the number of input elements a frame. Symmetric and strided layers take their own left padding; a causal
    one (`causal=True`: upstream pads its input, not the layer) takes kernel - 1.
    """

    def __init__(self, layer: ChannelsLastConv, unit: int = 1, causal: bool = False) -> None:
        self.layer = layer
        self.unit = unit
        self.left = layer.reach if causal else int(layer.conv.padding[0])
        self.right = layer.reach - self.left - (layer.stride - 1)

    def new_state(self, slots: int) -> Tensor:
        """Past inputs, (slots, left, C)."""
        conv = self.layer.conv
        return conv.weight.new_zeros(slots, self.left, conv.in_channels)

    def step(self, x: Tensor, past: Tensor, at: Step) -> Tensor:
        """x (B, T, C_in) -> (B, T / stride, C_out)."""
        nothing = torch.zeros(len(x), self.right, x.shape[2], dtype=x.dtype, device=x.device)
        joined = torch.cat([at.load(past), x, nothing], dim=1)
        if self.right and at.edges:  # outputs read no further beyond what exists, and find zeros there
            write(joined, self.left + at.beyond(self.right, self.unit), x.new_zeros(1, 1, 1))
        at.store(past, advance(joined, self.left, at, self.unit))
        return self.layer(joined)
