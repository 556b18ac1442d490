"""Stepped convolutions equal whole ones for any partition of the input."""

import pytest
import torch
from torch import nn

from neucodec_streaming.kernels.packed import ChannelsLastConv
from neucodec_streaming.layers.conv import StreamingConv
from tests.streaming.layers.stepping import in_chunks, random_chunks

pytestmark = pytest.mark.usefixtures("operations")


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "unit"),
    [(3, 1, 1, 1), (7, 1, 1, 4), (7, 1, 9, 4), (4, 2, 1, 4), (8, 4, 1, 4), (10, 5, 1, 5), (32, 16, 1, 16)],
)
@torch.inference_mode()
def test_symmetric_and_strided_convolutions_equal_the_whole(
    kernel: int, stride: int, dilation: int, unit: int, seed: int
) -> None:
    padding = -(-stride // 2) if stride > 1 else dilation * (kernel - 1) // 2
    conv = nn.Conv1d(3, 2, kernel, stride=stride, padding=padding, dilation=dilation)
    x = torch.randn(1, 20 * unit, 3)
    layer = StreamingConv(ChannelsLastConv(conv), unit)
    past = layer.new_state(1)
    y = in_chunks(lambda part, plan: layer.step(part, past, plan), x, random_chunks(20, seed), unit, last=20)
    torch.testing.assert_close(y, conv(x.mT).mT, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_causal_convolution_equals_the_whole_without_lookahead() -> None:
    conv = nn.Conv1d(4, 4, 31, groups=4, bias=False)
    x = torch.randn(1, 50, 4)
    layer = StreamingConv(ChannelsLastConv(conv), causal=True)
    past = layer.new_state(1)
    y = in_chunks(lambda part, plan: layer.step(part, past, plan), x, random_chunks(50, 2), 1, last=0)
    torch.testing.assert_close(y, conv(nn.functional.pad(x.mT, (30, 0))).mT, atol=1e-5, rtol=1e-5)
