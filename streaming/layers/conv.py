"""Convolutions over time that continue where the last chunk ended.

A layer keeps as many committed inputs as its left padding. Beyond both ends of a stream it reads zeros, as the offline
model pads.
"""

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from neucodec_streaming.kernels import native
from neucodec_streaming.kernels.packed import ChannelsLastConv
from neucodec_streaming.layers.step import StepPlan, advance


class StreamingConv:
    """A convolution of stride 1 (symmetric or causal) or of stride s with kernel 2s, stepped.

    `unit` is the number of input elements a frame. Symmetric and strided layers take their own left padding; a causal
    one (`causal=True`: upstream pads its input, not the layer) takes kernel - 1.
    """

    def __init__(self, layer: ChannelsLastConv, unit: int = 1, causal: bool = False) -> None:
        self.layer = layer
        self.unit = unit
        self.left = layer.reach if causal else layer.padding
        self.right = layer.reach - self.left - (layer.stride - 1)
        # int8 weights are packed either for native operations or for torch
        self.native = native.operations(layer.like) if layer.int8 is None else layer.int8.native

    def new_state(self, slots: int) -> Tensor:
        """Past inputs, (slots, left, C)."""
        return self.layer.like.new_zeros(slots, self.left, self.layer.in_channels)

    def step(self, x: Tensor, past: Tensor, plan: StepPlan) -> Tensor:
        """x (B, T, C_in) -> (B, T / stride, C_out)."""
        layer = self.layer
        if self.native is not None:
            rows = past, plan.slots, plan.valid, plan.commit, self.unit, self.right
            shape = layer.out_channels, layer.stride, layer.dilation
            if (int8 := layer.int8) is not None:
                return self.native.convolve_int8(x, *rows, int8.packed, int8.scales, int8.bias, *shape)
            if layer.is_small:
                return self.native.convolve(x, *rows, *self._weights, *shape)
            if layer.is_product(x.shape[1] // layer.stride):
                read = self.native.columns(x, *rows, layer.taps, layer.stride, layer.dilation)
                return layer.linear(read)
        if not self.left and not self.right:
            return layer(x)
        nothing = torch.zeros(len(x), self.right, x.shape[2], dtype=x.dtype, device=x.device)
        joined = torch.cat([plan.load(past), x, nothing], dim=1)
        if self.right and plan.edges:  # beyond the stream's end, outputs read zeros
            plan.write(joined, self.left + plan.beyond(self.right, self.unit), x.new_zeros(1, 1, 1))
        plan.store(past, advance(joined, self.left, plan, self.unit))
        return layer(joined)

    @cached_property
    def _weights(self) -> tuple[Tensor, Tensor]:
        """Weight (kernel, C_in or 1, C_out) and bias (C_out,), zero-padded to whole vector registers."""
        weight = self.layer.conv.weight.detach().permute(2, 1, 0)
        bias = self.layer.conv.bias
        bias = weight.new_zeros(weight.shape[2]) if bias is None else bias.detach()
        fill = (0, -weight.shape[2] % native.LANES)
        return F.pad(weight, fill).contiguous(), F.pad(bias, fill)
