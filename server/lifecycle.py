"""Lifecycles: an enum of states and one literal table of what may follow which; a move that it lacks is a bug."""

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

S = TypeVar("S", bound=Enum)


def moved(table: Mapping[S, frozenset[S]], state: S, to: S) -> S:
    """`to`, which may follow `state`. Raises RuntimeError if not."""
    if to not in table[state]:
        raise RuntimeError(f"{type(state).__name__} cannot go from {state.name} to {to.name}")
    return to
