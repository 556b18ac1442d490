"""Untrusted bytes raise only the declared errors: the targets of benchmarks/fuzz/targets.py, by hypothesis."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.fuzz.targets import SEEDS, TARGETS


@st.composite
def damaged(draw: st.DrawFn, seed: bytes) -> bytes:
    """A seed with a piece removed, duplicated or replaced."""
    start, end = sorted((draw(st.integers(0, len(seed))), draw(st.integers(0, len(seed)))))
    piece = draw(st.one_of(st.just(b""), st.just(2 * seed[start:end]), st.binary(max_size=64)))
    return seed[:start] + piece + seed[end:]


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=80, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_bytes_are_accepted_or_refused(name: str, data: st.DataObject) -> None:
    kinds = [st.binary(max_size=3000), *map(damaged, SEEDS.get(name, []))]
    TARGETS[name](data.draw(st.one_of(kinds)))
