"""Lifecycles: an enum of states and a table of allowed transitions; any other transition is a bug."""

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

S = TypeVar("S", bound=Enum)


def moved(table: Mapping[S, frozenset[S]], state: S, to: S) -> S:
    """Returns `to` if it may follow `state`. Raises RuntimeError otherwise."""
    if to not in table[state]:
        raise RuntimeError(f"{type(state).__name__} cannot go from {state.name} to {to.name}")
    return to
