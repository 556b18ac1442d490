"""int8 linear layers and convolutions: every instruction set, the fallback without a compiler, quantisation error."""

from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from neucodec_streaming.kernels import native
from neucodec_streaming.kernels.int8 import Int8Weights, fake_quantised, quantise
from neucodec_streaming.kernels.memory import HugePages

SHAPES = [(1, 1, 1), (5, 3, 2), (32, 64, 12), (70, 37, 13), (256, 768, 31), (33, 1030, 10), (64, 192, 80)]
CONVOLUTIONS = [(48, 40, 7, 1, 9), (33, 70, 4, 2, 1), (96, 64, 3, 1, 1), (37, 32, 8, 4, 1)]
"""Input channels, output channels, taps, stride and dilation."""


def layer(width: int, depth: int, rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(width * depth + rows)
    return torch.randn(width, depth) / depth**0.5, torch.randn(width), torch.randn(rows, depth) * 3


def int8_layer(weight: torch.Tensor, bias: torch.Tensor | None) -> Int8Weights:
    return Int8Weights(weight, bias, HugePages())


def torch_layer(weight: torch.Tensor, bias: torch.Tensor) -> Int8Weights:
    """Simulates a machine without a compiler."""
    with mock.patch.object(native, "_loaded", lambda: None):
        return int8_layer(weight, bias)


def fake_rows(x: torch.Tensor) -> torch.Tensor:
    """x (..., C) after quantising and dequantising each row."""
    return fake_quantised(x.flatten(0, -2)).view_as(x)


@pytest.mark.parametrize(("width", "depth", "rows"), SHAPES)
def test_a_linear_layer_is_the_product_of_quantised_values(operations, width, depth, rows):
    weight, bias, x = layer(width, depth, rows)
    found = int8_layer(weight, bias)(x)
    expected = F.linear(fake_quantised(x).double(), fake_quantised(weight).double(), bias.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("channels", "width", "taps", "stride", "dilation"), CONVOLUTIONS)
def test_a_convolution_is_computed_from_quantised_rows(channels, width, taps, stride, dilation):
    torch.manual_seed(channels)
    weight, bias, x = torch.randn(width, channels, taps), torch.randn(width), torch.randn(3, 90, channels)
    found = torch_layer(weight, bias).convolve(x, stride, dilation)
    of_weight = fake_quantised(weight.transpose(1, 2).flatten(1)).view(width, taps, channels).transpose(1, 2)
    expected = F.conv1d(fake_rows(x).mT.double(), of_weight.double(), bias.double(), stride, 0, dilation).mT
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("channels", "width", "taps", "stride", "dilation"), CONVOLUTIONS)
def test_a_native_convolution_equals_torchs_in_every_instruction_set(compiled, channels, width, taps, stride, dilation):
    torch.manual_seed(channels)
    weight, bias, x = torch.randn(width, channels, taps), torch.randn(width), torch.randn(3, 40, channels)
    past = torch.randn(4, 29, channels)
    int8, operations = int8_layer(weight, bias), native.operations(weight)
    slots, valid, commit = torch.tensor([[2, 0, 3], [4, 3, 0], [3, 2, 0]])
    results = []
    for one in operations.int8_instruction_sets():
        held, rows = past.clone(), (slots, valid, commit, 10, 5)
        y = operations.convolve_int8(
            x, held, *rows, int8.packed, int8.scales, bias, width, stride, dilation, instructions=one
        )
        results.append((y, held))
    assert all(torch.equal(y, results[0][0]) and torch.equal(held, results[0][1]) for y, held in results)
    exists = torch.arange(40)[None, :, None] < 10 * valid[:, None, None]
    joined = F.pad(torch.cat([past[slots], torch.where(exists, x, 0.0)], dim=1), (0, 0, 0, 5))
    torch.testing.assert_close(results[0][0], torch_layer(weight, bias).convolve(joined, stride, dilation))
    for row, slot in enumerate(slots):
        assert torch.equal(results[0][1][slot], joined[row, 10 * commit[row] :][:29])
    assert torch.equal(results[0][1][1], past[1])


@pytest.mark.parametrize(("width", "depth", "rows"), SHAPES)
def test_every_instruction_set_gives_the_same_bits(compiled, width, depth, rows):
    weight, bias, x = layer(width, depth, rows)
    operations, int8 = native.operations(weight), int8_layer(weight, bias)
    sets = operations.int8_instruction_sets()
    for silu in (False, True):
        rest = int8.packed, int8.scales, bias, width, silu
        first, *others = (operations.linear_int8(x, *rest, instructions=one) for one in sets)
        assert sets[-1] == "plain" and all(torch.equal(first, other) for other in others)
        assert torch.equal(first, int8(x, silu=silu))


def test_a_row_has_the_same_bits_in_any_batch(operations):
    weight, bias, x = layer(96, 128, 40)
    multiply = int8_layer(weight, bias)
    together = multiply(x)
    for count in (1, 2, 7, 13):
        loud = torch.cat([x[:count], 1000 * x[count:]])
        assert torch.equal(multiply(loud)[:count], together[:count])
        assert torch.equal(multiply(x[:count]), together[:count])


def test_results_do_not_depend_on_the_number_of_axes_or_threads(operations):
    weight, bias, x = layer(96, 128, 40)
    multiply = int8_layer(weight, bias)
    expected = multiply(x)
    assert torch.equal(multiply(x.unflatten(0, (2, 4, 5))), expected.unflatten(0, (2, 4, 5)))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.equal(multiply(x), expected)
    finally:
        torch.set_num_threads(threads)


def test_silence_and_the_largest_values_are_exact(operations):
    weight = torch.eye(16)
    x = torch.zeros(3, 16)
    x[1, 4], x[2] = -1000.0, torch.linspace(-127, 127, 16)
    found = int8_layer(weight, None)(x)
    np.testing.assert_array_equal(found[:2], x[:2])
    assert (found[2] - x[2]).abs().max() <= 0.5


def test_quantisation_error_is_at_most_half_a_scale():
    x = torch.randn(7, 300)
    values, scale = quantise(x)
    assert values.dtype == torch.int8 and int(values.abs().max()) == 127
    assert ((x - fake_quantised(x)).abs() <= scale * 0.5001).all()


def test_silu_is_applied_to_the_outputs(operations):
    weight, bias, x = layer(70, 37, 13)
    int8 = int8_layer(weight * 20, bias)
    torch.testing.assert_close(int8(x, silu=True), F.silu(int8(x)), rtol=1e-5, atol=1e-5)
