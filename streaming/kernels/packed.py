"""The weights of a model as steps want them: linear layers packed for the CPU, convolutions over (B, T, C).

A step has few rows, so its products are bound by reading weights, and a library that first rearranges them for its
matrix units reads them twice. `with_packed_weights` copies a module tree, sharing every parameter, and puts layers into
it that pack their weight once, at their first use (a decoder's step packs no encoder). The original stays as it is, for
whole recordings; so what is stepped takes its memory twice.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import cache, cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neucodec_streaming.kernels import native
from neucodec_streaming.kernels.int8 import make_int8_linear

PACK_ROWS = 16
"""Rows that the packed layout is chosen for; one number, so that equal steps have equal bits wherever they run."""
BIG_WEIGHT = 1 << 18
"""Elements from which on float32 weights gain by packing, and convolutions by being one product."""
FEW_OUTPUTS = 16
"""As many as a convolution of any weight makes faster as one product."""
QUERY_KEY_VALUE = (("q_proj", "k_proj", "v_proj"), ("linear_q", "linear_k", "linear_v"))
"""What the models call the layers that an attention reads its input with; together they are `query_key_value`."""

LinearFn = Callable[[Tensor], Tensor]


def make_linear(weight: Tensor, bias: Tensor | None) -> LinearFn:
    """x (…, K) times weight (N, K), plus bias: (…, N).

    On a CPU natively where that is possible, but for a big weight that several threads share; else the weight is packed
    or turned, whichever gains.
    """
    operations = native.operations(weight)
    if operations is not None and (weight.numel() < BIG_WEIGHT or torch.get_num_threads() == 1):
        panels, bias = operations.pack(weight.detach().contiguous()), None if bias is None else bias.detach()
        return lambda x: operations.linear(x, panels, bias, len(weight))
    if not has_onednn(weight):
        return partial(F.linear, weight=weight, bias=bias)
    if weight.dtype == torch.float32 and weight.numel() < BIG_WEIGHT:
        return partial(F.linear, weight=weight.detach().t().contiguous().t(), bias=bias)  # (N, K), K x N in memory
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), PACK_ROWS)

    def multiply(x: Tensor) -> Tensor:
        if torch.jit.is_tracing():
            return _traceable().linear(x, packed, bias)
        return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")

    return multiply


def make_conv(
    weight: Tensor, bias: Tensor | None, stride: int = 1, dilation: int = 1, groups: int = 1, padded_rows: int = 0
) -> LinearFn:
    """Along T of an image x (B, R, T, C_in), `padded_rows` of zeros on both sides: (B, R', T', C_out).

    weight (C_out, C_in / groups, rows, kernel), packed on a CPU.
    """
    weight = weight.detach().contiguous(memory_format=torch.channels_last)
    strides, padding, dilations = (1, stride), (padded_rows, 0), (1, dilation)
    if has_onednn(weight):
        packed = torch.ops.mkldnn._reorder_convolution_weight(weight, padding, strides, dilations, groups)

        def convolve(image: Tensor) -> Tensor:
            if torch.jit.is_tracing():
                return _traceable().convolution(image, packed, bias, padding, strides, dilations, groups)
            return torch.ops.mkldnn._convolution_pointwise(
                image, packed, bias, padding, strides, dilations, groups, "none", [], ""
            )
    else:
        convolve = partial(
            F.conv2d, weight=weight, bias=bias, stride=strides, padding=padding, dilation=dilations, groups=groups
        )
    # (B, R, T, C) -> (B, C, R, T), whose memory is channels last, and back
    return lambda x: convolve(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


@cache
def _traceable() -> Any:
    """The two operations above in TorchScript: called from Python, a trace does not know their `Scalar?[]`."""
    return torch.jit.CompilationUnit("""
    def linear(x, packed, bias: Optional[Tensor]):
        return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    def convolution(x, packed, bias: Optional[Tensor], padding: Tuple[int, int], strides: Tuple[int, int],
                    dilations: Tuple[int, int], groups: int):
        return torch.ops.mkldnn._convolution_pointwise(
            x, packed, bias, padding, strides, dilations, groups, "none", [], "")
    """)


class PackedLinear(nn.Module):
    """One linear layer, or several that read the same input, as one product: their outputs side by side."""

    make_linear = staticmethod(make_linear)

    def __init__(self, *layers: nn.Linear) -> None:
        super().__init__()
        self.layers: Any = nn.ModuleList(layers)

    @property
    def weight(self) -> Tensor:
        """Weight of the first, for its device and dtype."""
        return self.layers[0].weight

    @cached_property
    def _product(self) -> LinearFn:
        if len(self.layers) == 1:
            return self.make_linear(self.weight, self.layers[0].bias)
        biases = [layer.bias for layer in self.layers]
        bias = None if biases[0] is None else torch.cat(biases)
        return self.make_linear(torch.cat([layer.weight for layer in self.layers]), bias)

    def forward(self, x: Tensor) -> Tensor:
        return self._product(x)


class ChannelsLastConv(nn.Module):
    """A `Conv1d` over (B, T, C_in) that adds no padding: (B, (T - reach - 1) // stride + 1, C_out)."""

    make_linear = staticmethod(make_linear)

    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        self.conv = conv
        self.stride, self.dilation = conv.stride[0], conv.dilation[0]
        self.reach = (conv.kernel_size[0] - 1) * self.dilation
        self.dense = conv.groups == 1

    @cached_property
    def linear(self) -> LinearFn:
        """What an output reads, side by side (…, kernel * C_in), to it."""
        return self.make_linear(self.conv.weight.transpose(1, 2).flatten(1), self.conv.bias)

    @cached_property
    def _convolution(self) -> LinearFn:
        conv = self.conv
        return make_conv(conv.weight[:, :, None], conv.bias, self.stride, self.dilation, conv.groups)

    def is_product(self, outputs: int) -> bool:
        """Whether so many outputs are computed as one product."""
        few = self.reach == 0 or outputs <= FEW_OUTPUTS or self.conv.weight.numel() >= BIG_WEIGHT
        return self.dense and few and self.conv.weight.device.type == "cpu"

    def forward(self, x: Tensor) -> Tensor:
        outputs = (x.shape[1] - self.reach - 1) // self.stride + 1
        if self.is_product(outputs):
            channels = x.shape[2]
            spans = x.flatten(1).unfold(1, (self.reach + 1) * channels, self.stride * channels)
            if self.dilation > 1:
                spans = spans.unflatten(2, (-1, channels))[:, :, :: self.dilation].flatten(2)
            return self.linear(spans.contiguous())
        return self._convolution(x.unsqueeze(1)).squeeze(1)  # (B, T, C_in) -> (B, 1, T, C_in), and from it


def has_onednn(weight: Tensor) -> bool:
    """Whether the CPU library with packed layouts computes with this weight."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()  # not without AVX-512 or its like
    return weight.dtype == torch.float32


def with_packed_weights(model: nn.Module, is_int8: Callable[[str], bool] = lambda name: False) -> nn.Module:
    """A copy of the tree that shares its parameters and buffers, with the layers above in place of torch's.

    Layers whose name `is_int8` approves multiply int8 weights by int8 activations (int8.py).
    """
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    copy = deepcopy(model, shared)
    for prefix, parent in list(copy.named_modules()):
        packed: dict[str, PackedLinear | ChannelsLastConv] = {}
        for names in QUERY_KEY_VALUE:
            if all(hasattr(parent, name) for name in names):
                packed["query_key_value"] = PackedLinear(*(getattr(parent, name) for name in names))
        for name, child in parent.named_children():
            if type(child) is nn.Linear:
                packed[name] = PackedLinear(child)
            elif type(child) is nn.Conv1d:
                packed[name] = ChannelsLastConv(child)
        for name, layer in packed.items():
            if is_int8(f"{prefix}.{name}".removeprefix(".")):
                layer.make_linear = make_int8_linear
            setattr(parent, name, layer)
    return copy


def keep_freed_memory() -> None:
    """Have the C library keep freed blocks for the next step instead of giving them back to the system.

    Steps free and allocate the same megabytes again and again, and touching fresh pages costs more than the arithmetic.
    glibc raises its limits to the size of a block that it gave back, up to 32 MiB (mallopt(3), M_MMAP_THRESHOLD).
    """
    torch.empty(31 << 20, dtype=torch.uint8)
