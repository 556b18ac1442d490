"""int8 linear layers: every instruction set, the way without a compiler, and what quantising costs."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from neucodec_streaming.kernels import native
from neucodec_streaming.kernels.int8 import fake_quantised, make_int8_linear, quantise

SHAPES = [(1, 1, 1), (5, 3, 2), (32, 64, 12), (70, 37, 13), (256, 768, 31), (33, 1030, 10)]


def layer(width: int, depth: int, rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(width * depth + rows)
    return torch.randn(width, depth) / depth**0.5, torch.randn(width), torch.randn(rows, depth) * 3


@pytest.mark.parametrize(("width", "depth", "rows"), SHAPES)
def test_it_is_the_product_of_quantised_values(operations, width, depth, rows):
    weight, bias, x = layer(width, depth, rows)
    found = make_int8_linear(weight, bias)(x)
    expected = F.linear(fake_quantised(x).double(), fake_quantised(weight).double(), bias.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("width", "depth", "rows"), SHAPES)
def test_every_instruction_set_gives_the_same_bits(compiled, width, depth, rows):
    weight, bias, x = layer(width, depth, rows)
    operations = native.operations(weight)
    packed, scales = operations.pack_int8(weight)
    sets = operations.int8_instruction_sets()
    first, *others = (operations.linear_int8(x, packed, scales, bias, width, one) for one in sets)
    assert sets[-1] == "plain" and all(torch.equal(first, other) for other in others)
    assert torch.equal(first, operations.linear_int8(x, packed, scales, bias, width))


def test_a_row_has_the_same_bits_among_any_others(operations):
    weight, bias, x = layer(96, 128, 40)
    multiply = make_int8_linear(weight, bias)
    together = multiply(x)
    for count in (1, 2, 7, 13):
        loud = torch.cat([x[:count], 1000 * x[count:]])
        assert torch.equal(multiply(loud)[:count], together[:count])
        assert torch.equal(multiply(x[:count]), together[:count])


def test_any_number_of_axes_and_threads(operations):
    weight, bias, x = layer(96, 128, 40)
    multiply = make_int8_linear(weight, bias)
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
    found = make_int8_linear(weight, None)(x)
    np.testing.assert_array_equal(found[:2], x[:2])
    assert (found[2] - x[2]).abs().max() <= 0.5


def test_quantisation_error_is_at_most_half_a_scale():
    x = torch.randn(7, 300)
    values, scale = quantise(x)
    assert values.dtype == torch.int8 and int(values.abs().max()) == 127
    assert ((x - fake_quantised(x)).abs() <= scale * 0.5001).all()
