"""Shell completion by shtab: commands, flags, choices, and file names."""

import argparse
from typing import Any

import shtab

SHELLS = ("bash", "zsh", "fish")
FILE = "FILE"
"""Arguments with this metavar, or with one that has an extension, are files."""


class CompletedParser(argparse.ArgumentParser):
    """A parser that tells shtab which arguments are files."""

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        """As in argparse."""
        action = super().add_argument(*names, **options)
        shown = str(options.get("metavar"))
        if shown == FILE or "." in shown:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        return action


def completion(shell: str, parser: CompletedParser) -> str:
    """The script to source (bash), to put on `fpath` (zsh) or into `completions` (fish)."""
    return shtab.complete(parser, shell) + "\n"
