"""The comparison runs the same sessions with and without native operations."""

import pytest

from benchmarks import native
from benchmarks.mimi import Ours
from neucodec_streaming import load_codec

pytestmark = pytest.mark.usefixtures("compiled")


def uses(live: Ours) -> list[bool]:
    """Returns whether each step has native operations."""
    recorded = live._engine._runner._traced.values()  # type: ignore[attr-defined]
    return ["neucodec::" in str(step._graph.graph) for step in recorded]


def test_only_one_side_of_the_comparison_uses_native_operations() -> None:
    assert set(uses(Ours(load_codec("nano"), 1))) == {True}
    assert set(uses(native.with_torch_alone("nano", 1))) == {False}


def test_a_row_has_the_share_of_each_side_and_their_ratio() -> None:
    row = native.row_of("nano", 1, turns=1)
    assert row["sessions"] == 1 and 0 < row["native"] < row["torch"]
    assert row["ratio"] == row["native"] / row["torch"]
