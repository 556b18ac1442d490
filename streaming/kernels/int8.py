"""Linear layers and convolutions with int8 weights and activations: int8.cpp, and the same values without a compiler.

A weight has one scale per output channel, an activation one per row of channels, so a row's bits depend on that row
only. The largest value of a row is 127 scales. Sums are exact integers. FLOAT_LAYERS stay in float32.
"""

from fnmatch import fnmatch
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neucodec_streaming.kernels import native
from neucodec_streaming.kernels.memory import HugePages

MAX_INT8 = 127
PANEL, GROUP = 32, 4
"""Output channels computed together, and input channels summed by one instruction (int8_products.h)."""
LAYOUT = 2
"""Version of the packed layout."""
FLOAT_LAYERS: tuple[str, ...] = (
    "quantizer.*",
    "semantic_encoder.feature_projection.*",
    "acoustic_decoder.head.*",
)
"""Layers that stay in float32: they have few weights, or their error affects the whole model (`benchmarks.int8`)."""


def is_int8(name: str) -> bool:
    """Whether the layer of that name is quantised."""
    return not any(fnmatch(name, pattern) for pattern in FLOAT_LAYERS)


class Int8Weights(nn.Module):
    """The weights of a linear layer (N, C), or of a convolution (N, C, taps), as int8.

    All data is in buffers, in memory of `pages`: uint8 `packed` (panels, taps, groups, PANEL, GROUP) with native
    operations, else int8 (1, taps, C, N); float32 `scales` of the channels. `weight` may be on the meta device.
    """

    packed: Tensor
    scales: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, pages: HugePages) -> None:
        super().__init__()
        by_tap = weight.detach()[..., None] if weight.dim() == 2 else weight.detach()  # (N, C, taps)
        self.width, self.channels, self.taps = by_tap.shape
        self.native: Any = native.operations(weight.new_zeros(0, dtype=torch.float32, device="cpu"))
        panels, groups = -(-self.width // PANEL), -(-self.channels // GROUP)
        shape: tuple[int, ...] = (panels, self.taps, groups, PANEL, GROUP)
        if self.native is None:
            shape = (1, self.taps, self.channels, self.width)
        dtype = torch.int8 if self.native is None else torch.uint8
        device = torch.device("meta") if weight.is_meta else torch.device("cpu")
        self.register_buffer("packed", pages.empty(shape, dtype, device))
        self.register_buffer(
            "scales", torch.empty(self.width if self.native is None else panels * PANEL, device=device)
        )
        self.register_buffer("bias", None if bias is None else bias.detach().float())
        if not weight.is_meta:
            self._fill(by_tap.transpose(1, 2).float().contiguous())

    def _fill(self, weight: Tensor) -> None:
        """From weight (N, taps, C)."""
        if self.native is not None:
            self.native.pack_int8(weight, self.packed, self.scales)
            return
        values, scales = quantise(weight.flatten(1))
        self.packed[0].copy_(values.unflatten(1, weight.shape[1:]).permute(1, 2, 0))  # (taps, C, N)
        self.scales.copy_(scales[:, 0])

    def forward(self, x: Tensor, silu: bool = False) -> Tensor:
        """A linear layer, and SiLU if wanted: x float32 (..., C) -> (..., N)."""
        if self.native is not None:
            return self.native.linear_int8(x, self.packed, self.scales, self.bias, self.width, silu)
        y = self.convolve(x.reshape(1, -1, x.shape[-1]), 1, 1).view(*x.shape[:-1], self.width)
        return F.silu(y) if silu else y

    def convolve(self, x: Tensor, stride: int, dilation: int) -> Tensor:
        """A convolution without native operations: x float32 (B, T, C), padded -> (B, T', N)."""
        outputs = (x.shape[1] - (self.taps - 1) * dilation - 1) // stride + 1
        values, scale = quantise(x.flatten(0, 1))
        values, scale = values.unflatten(0, x.shape[:2]), scale.unflatten(0, x.shape[:2])
        total = x.new_zeros(len(x) * outputs, self.width)
        for tap, weight in enumerate(self.packed[0]):
            read = slice(tap * dilation, tap * dilation + (outputs - 1) * stride + 1, stride)
            total += _int_product(values[:, read].flatten(0, 1), weight) * scale[:, read].flatten(0, 1)
        y = total * self.scales
        return (y if self.bias is None else y + self.bias).unflatten(0, (len(x), outputs))


def _int_product(x: Tensor, weight: Tensor) -> Tensor:
    """int8 (R, C) times int8 (C, N) -> float32."""
    return torch._int_mm(x.contiguous(), weight).float()


def quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantises x float32 (R, K) to int8 (R, K) and the scale of each row, float32 (R, 1)."""
    largest = x.abs().amax(dim=1, keepdim=True)
    inverse = torch.where(largest > 0, MAX_INT8 / largest, 0.0)
    return (x * inverse).round_().to(torch.int8), largest / MAX_INT8


def fake_quantised(x: Tensor) -> Tensor:
    """The values (R, K) that a quantised x represents, for comparison with int8 layers."""
    values, scale = quantise(x)
    return values * scale
