"""The weights of a model as steps need them: linear layers packed for the CPU, convolutions over (B, T, C).

A step has few rows, so its products are bound by reading weights, and a library that first rearranges them for its
matrix units reads them twice. `pack_layers` replaces layers of a module tree by ones that pack their weight once: int8
at once, others at their first use (a decoder's step packs no encoder). `with_packed_weights` does so to a copy that
shares every parameter; the original stays for whole recordings, which doubles the memory of stepped parts. After
`release_originals` a tree has only its packed weights.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache, cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neucodec_streaming.kernels import native
from neucodec_streaming.kernels.int8 import Int8Weights
from neucodec_streaming.kernels.memory import HugePages, give_back_freed_memory

PACK_ROWS = 16
"""Rows that the packed layout is tuned for; a constant, so that equal steps have equal bits on any machine."""
BIG_WEIGHT = 1 << 18
"""Weights with this many elements are faster packed (float32), and as one product (convolutions)."""
FEW_OUTPUTS = 16
"""With at most this many outputs, a convolution of any weight is faster as one product."""
QUERY_KEY_VALUE = (("q_proj", "k_proj", "v_proj"), ("linear_q", "linear_k", "linear_v"))
"""The models' names for layers that read an attention's input; together they are `query_key_value`."""
SILU = ("SiLU", "SiLUActivation")
"""Torch's and transformers' classes of x / (1 + e^-x)."""

LinearFn = Callable[[Tensor], Tensor]


def make_linear(weight: Tensor, bias: Tensor | None) -> LinearFn:
    """x (..., K) times weight (N, K), plus bias: (..., N).

    On a CPU natively where possible, except for a large weight with several threads; else with the weight packed or
    transposed, whichever is faster.
    """
    operations = native.operations(weight)
    if operations is not None and (weight.numel() < BIG_WEIGHT or torch.get_num_threads() == 1):
        panels, bias = operations.pack(weight.detach().contiguous()), None if bias is None else bias.detach()
        rows = len(weight)  # the function below must not keep the original weight
        return lambda x: operations.linear(x, panels, bias, rows)
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
    """Convolution along T of an image x (B, R, T, C_in), with `padded_rows` of zeros on both sides: (B, R', T', C_out).

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
    """The two operations above in TorchScript: a trace cannot record their `Scalar?[]` when called from Python."""
    return torch.jit.CompilationUnit("""
    def linear(x, packed, bias: Optional[Tensor]):
        return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    def convolution(x, packed, bias: Optional[Tensor], padding: Tuple[int, int], strides: Tuple[int, int],
                    dilations: Tuple[int, int], groups: int):
        return torch.ops.mkldnn._convolution_pointwise(
            x, packed, bias, padding, strides, dilations, groups, "none", [], "")
    """)


class PackedLinear(nn.Module):
    """One linear layer, or several with the same input as one product, with their outputs concatenated.

    With `pages` the weights are quantised to int8 into them at once, without keeping the original.
    """

    like: Tensor

    def __init__(self, *layers: nn.Linear, pages: HugePages | None = None) -> None:
        super().__init__()
        self.width = sum(layer.out_features for layer in layers)
        self.layers: Any = nn.ModuleList(layers) if pages is None else None
        self.int8 = None if pages is None else Int8Weights(*_side_by_side(layers), pages)
        self.register_buffer("like", _like(layers[0].weight, pages), persistent=False)

    @property
    def ring_dtype(self) -> torch.dtype:
        """Dtype of keys and values in a ring: half the bytes for int8 weights."""
        return self.like.dtype if self.int8 is None else torch.bfloat16

    @cached_property
    def _product(self) -> LinearFn:
        return self.int8 or make_linear(*_side_by_side(self.layers))

    def release(self) -> None:
        """Keeps only the packed weight."""
        self.__dict__["_product"] = self._product  # the only copy from now on
        self.layers = None

    def forward(self, x: Tensor) -> Tensor:
        return self._product(x)

    def activated(self, x: Tensor, activation: nn.Module) -> Tensor:
        """The activated outputs."""
        if self.int8 is not None and type(activation).__name__ in SILU:
            return self.int8(x, silu=True)
        return activation(self(x))


class ChannelsLastConv(nn.Module):
    """A `Conv1d` over (B, T, C_in) that adds no padding: (B, (T - reach - 1) // stride + 1, C_out).

    With `pages` the weights are quantised to int8 into them at once, without keeping the original.
    """

    like: Tensor

    def __init__(self, conv: nn.Conv1d, pages: HugePages | None = None) -> None:
        super().__init__()
        self.taps, self.stride, self.dilation = conv.kernel_size[0], conv.stride[0], conv.dilation[0]
        self.padding = int(conv.padding[0])
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        self.reach = (self.taps - 1) * self.dilation
        self.dense = conv.groups == 1
        self.is_big = self.dense and conv.weight.numel() >= BIG_WEIGHT
        self.is_small = is_small(conv)
        self.conv: Any = conv if pages is None else None
        self.int8 = None if pages is None else Int8Weights(conv.weight, conv.bias, pages)
        self.register_buffer("like", _like(conv.weight, pages), persistent=False)

    @cached_property
    def linear(self) -> LinearFn:
        """The inputs of each output, concatenated (..., kernel * C_in) -> the output."""
        return make_linear(self.conv.weight.transpose(1, 2).flatten(1), self.conv.bias)

    @cached_property
    def _convolution(self) -> LinearFn:
        conv = self.conv
        return make_conv(conv.weight[:, :, None], conv.bias, self.stride, self.dilation, conv.groups)

    def release(self) -> None:
        """Keeps only the packed weight, if it is large."""
        if self.is_big and self.conv is not None:
            self.__dict__["linear"] = self.linear  # the only copy from now on
            self.conv = None

    def is_product(self, outputs: int) -> bool:
        """Whether that many outputs are computed as one product."""
        few = self.reach == 0 or outputs <= FEW_OUTPUTS or self.is_big
        return self.dense and few and self.like.device.type == "cpu"

    def forward(self, x: Tensor) -> Tensor:
        if self.int8 is not None:
            pointwise = self.taps == self.stride == 1
            return self.int8(x) if pointwise else self.int8.convolve(x, self.stride, self.dilation)
        outputs = (x.shape[1] - self.reach - 1) // self.stride + 1
        if self.is_product(outputs):
            channels = x.shape[2]
            spans = x.flatten(1).unfold(1, (self.reach + 1) * channels, self.stride * channels)
            if self.dilation > 1:
                spans = spans.unflatten(2, (-1, channels))[:, :, :: self.dilation].flatten(2)
            return self.linear(spans.contiguous())
        return self._convolution(x.unsqueeze(1)).squeeze(1)  # (B, T, C_in) -> (B, 1, T, C_in), and from it


def _side_by_side(layers: Sequence[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of layers with the same input."""
    if len(layers) == 1:
        return layers[0].weight, layers[0].bias
    has_bias = layers[0].bias is not None
    bias = torch.cat([layer.bias for layer in layers]) if has_bias else None
    return torch.cat([layer.weight for layer in layers]), bias


def _like(weight: Tensor, pages: HugePages | None) -> Tensor:
    """An empty tensor with a layer's device and dtype of computation."""
    return torch.empty(0, device=weight.device, dtype=torch.float32 if pages else weight.dtype)


def is_small(conv: nn.Conv1d) -> bool:
    """Whether a convolution is too small for a matrix product: few channels, or depthwise."""
    depthwise = conv.groups == conv.in_channels == conv.out_channels
    return depthwise or (conv.groups == 1 and conv.in_channels <= native.FEW_CHANNELS)


def has_onednn(weight: Tensor) -> bool:
    """Whether the CPU library with packed layouts supports this weight."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()  # requires AVX-512 or similar
    return weight.dtype == torch.float32


def with_packed_weights(model: nn.Module, is_int8: Callable[[str], bool] = lambda name: False) -> nn.Module:
    """A copy of the tree that shares its parameters and buffers, with the layers above in place of torch's."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return pack_layers(deepcopy(model, shared), is_int8)


def pack_layers(model: nn.Module, is_int8: Callable[[str], bool] = lambda name: False) -> nn.Module:
    """Replaces torch's layers of the tree by the layers above.

    Layers whose name `is_int8` accepts multiply int8 weights by int8 activations (int8.py), except small convolutions.
    """
    pages = HugePages()
    for prefix, parent in list(model.named_modules()):
        for names in QUERY_KEY_VALUE:
            if all(hasattr(parent, name) for name in names):
                of_int8 = pages if is_int8(f"{prefix}.query_key_value") else None
                parent.query_key_value = PackedLinear(*(getattr(parent, name) for name in names), pages=of_int8)
                for name in names:
                    delattr(parent, name)
        for name, child in list(parent.named_children()):
            of_int8 = pages if is_int8(f"{prefix}.{name}".removeprefix(".")) else None
            if type(child) is nn.Linear:
                setattr(parent, name, PackedLinear(child, pages=of_int8))
            elif type(child) is nn.Conv1d:
                setattr(parent, name, ChannelsLastConv(child, pages=None if is_small(child) else of_int8))
    return model


def release_originals(model: nn.Module) -> None:
    """Keeps only the packed weights of `pack_layers`, each once in memory."""
    for layer in model.modules():
        if isinstance(layer, (PackedLinear, ChannelsLastConv)):
            layer.release()
    give_back_freed_memory()
