"""Modules of an earlier checkout beside today's, to compare with.

CHECKOUT is a folder with commit 6c4c013, whose packages were named `streaming` and `server`:
`mkdir CHECKOUT; git archive 6c4c013 | tar x -C CHECKOUT`.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any


def imported(checkout: Path, name: str) -> Any:
    """A module of the checkout; its folder is on `sys.path` only meanwhile, since other names are found there too."""
    sys.path.insert(0, str(checkout))
    try:
        return import_module(name)
    finally:
        sys.path.remove(str(checkout))
