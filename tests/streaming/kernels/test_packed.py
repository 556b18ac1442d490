"""Packed layers compute the same as torch's and share their weights."""

import pytest
import torch
from torch import nn

from neucodec_streaming.kernels.packed import ChannelsLastConv, PackedLinear, with_packed_weights

pytestmark = pytest.mark.usefixtures("operations")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [24, 600])
@torch.inference_mode()
def test_a_packed_product_equals_the_plain_one_at_any_number_of_rows(dtype: torch.dtype, size: int) -> None:
    plain = nn.Linear(size, size + 8, dtype=dtype)
    packed = PackedLinear(plain)
    for rows in (1, 10, 300):
        x = torch.randn(2, rows, size, dtype=dtype)
        torch.testing.assert_close(packed(x), plain(x))


@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "dilation", "groups", "length"),
    [
        (3, 7, 1, 9, 1, 100),  # an image
        (3, 7, 1, 3, 1, 22),  # a product: few outputs
        (4, 8, 4, 1, 1, 200),
        (4, 1, 1, 1, 1, 40),  # a product: an output reads one input
        (260, 4, 2, 1, 1, 90),  # a product: big weights
        (8, 31, 1, 1, 8, 60),  # depthwise
    ],
)
@torch.inference_mode()
def test_a_convolution_over_channels_last_equals_conv1d(
    channels: int, kernel: int, stride: int, dilation: int, groups: int, length: int
) -> None:
    conv = nn.Conv1d(channels, channels, kernel, stride, dilation=dilation, groups=groups)
    x = torch.randn(2, length, channels)
    torch.testing.assert_close(ChannelsLastConv(conv)(x), conv(x.mT).mT, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_repacked_model_shares_every_parameter_and_leaves_the_original_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Conv1d(4, 4, 3), nn.LayerNorm(4)))
    kinds = [type(module) for module in model.modules()]
    copy = with_packed_weights(model)
    assert [type(module) for module in model.modules()] == kinds
    assert isinstance(copy[0], PackedLinear) and isinstance(copy[1][0], ChannelsLastConv)
    assert {id(parameter) for parameter in copy.parameters()} == {id(parameter) for parameter in model.parameters()}
