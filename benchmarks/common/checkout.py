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
        module = import_module(name)
    finally:
        sys.path.remove(str(checkout))
    found = Path(module.__file__ or "").resolve()
    if not found.is_relative_to(checkout.resolve()):
        raise SystemExit(f"{checkout} has no module {name}: expected a checkout of commit 6c4c013")
    return module
