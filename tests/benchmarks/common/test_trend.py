"""The slope of a long run."""

import pytest

from benchmarks.common.trend import slope


def test_an_outlier_does_not_bend_a_slope() -> None:
    assert slope([1.0, 2.0, 3.0, 99.0, 5.0, 6.0, 7.0]) == 1.0


@pytest.mark.parametrize("values", [[], [3.0]])
def test_fewer_than_two_values_have_no_slope(values) -> None:
    assert slope(values) == 0.0
