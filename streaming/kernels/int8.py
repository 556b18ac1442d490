"""Linear layers with int8 weights and activations: int8.cpp where it is compiled, and the same values without it.

A weight has one scale per output channel, an activation one per row: a row's bits depend on that row alone. The
largest value of a row is 127 scales. Sums are exact integers. FLOAT_LAYERS names the layers that stay in float32.
"""

from collections.abc import Callable
from fnmatch import fnmatch

import torch
from torch import Tensor

from neucodec_streaming.kernels import native

MAX_INT8 = 127
FLOAT_LAYERS: tuple[str, ...] = (
    "acoustic_encoder.conv2",
    "fc_encoder",
    "quantizer.*",
    "semantic_encoder.feature_projection.*",
    "acoustic_decoder.head.*",
)
"""Layers that stay in float32: they have few weights, or an error that the whole model shows (`benchmarks.int8`)."""


def is_int8(name: str) -> bool:
    """Whether the layer of that name is one of those that are quantised."""
    return not any(fnmatch(name, pattern) for pattern in FLOAT_LAYERS)


def make_int8_linear(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """x float32 (…, K) times weight float32 (N, K), plus bias: (…, N), both quantised to int8."""
    weight, bias = weight.detach().contiguous(), None if bias is None else bias.detach()
    operations = native.operations(weight)
    if operations is not None:
        packed, scales = operations.pack_int8(weight)
        return lambda x: operations.linear_int8(x, packed, scales, bias, len(weight))
    quantised, of_channel = quantise(weight)
    columns, of_channel = quantised.T.contiguous(), of_channel.squeeze(1)

    def multiply(x: Tensor) -> Tensor:
        rows, of_row = quantise(x.reshape(-1, x.shape[-1]))
        y = torch._int_mm(rows, columns).float() * (of_row * of_channel)
        return (y if bias is None else y + bias).unflatten(0, x.shape[:-1])

    return multiply


def quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """x float32 (R, K) -> int8 (R, K), and float32 (R, 1): the scale of each row."""
    largest = x.abs().amax(dim=1, keepdim=True)
    inverse = torch.where(largest > 0, MAX_INT8 / largest, 0.0)
    return (x * inverse).round_().to(torch.int8), largest / MAX_INT8


def fake_quantised(x: Tensor) -> Tensor:
    """The values (R, K) that a quantised x stands for: what int8 layers are compared with."""
    values, scale = quantise(x)
    return values * scale
