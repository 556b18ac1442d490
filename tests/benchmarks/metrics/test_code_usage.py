"""Entropies are those of known distributions."""

import numpy as np
import pytest

from benchmarks.metrics.code_usage import code_usage, entropy_bits


def test_uniform_codes_have_16_bits_and_2_a_level() -> None:
    usage = code_usage(np.arange(65_536).astype(np.uint16))
    assert usage["entropy_bits"] == pytest.approx(16)
    assert usage["level_entropy_bits"] == pytest.approx([2] * 8)
    assert usage["share_seen"] == 1 and usage["tokens"] == 65_536


def test_the_entropy_of_a_single_code_is_zero() -> None:
    usage = code_usage(np.full(1000, 12_345, np.uint16))
    assert usage["entropy_bits"] == 0 and usage["level_entropy_bits"] == [0] * 8
    assert usage["share_seen"] == 1 / 65_536


def test_few_tokens_cannot_show_16_bits() -> None:
    usage = code_usage(np.arange(1024, dtype=np.uint16))
    assert usage["entropy_bits"] == usage["entropy_bits_at_most"] == 10


def test_a_constant_level_has_zero_entropy_at_its_position() -> None:
    tokens = np.random.default_rng(0).integers(65_536, size=50_000) & ~(3 << 4)  # the third level of two bits
    levels = code_usage(tokens.astype(np.uint16))["level_entropy_bits"]
    assert levels[2] == 0 and min(levels[:2] + levels[3:]) > 1.99


def test_the_entropy_of_a_half_and_two_quarters_is_1_5_bits() -> None:
    assert entropy_bits(np.array([7, 7, 8, 9])) == 1.5
