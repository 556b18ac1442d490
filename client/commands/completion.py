"""Shell completion by shtab: commands, flags, their choices, and file names where a file is meant."""

import argparse
from typing import Any

import shtab

SHELLS = ("bash", "zsh", "fish")
FILE = "FILE"
"""A value that is shown by this name, or by one with an ending, is a file."""


class CompletedParser(argparse.ArgumentParser):
    """A parser whose arguments for files are known as such to shtab."""

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        """As argparse has it."""
        action = super().add_argument(*names, **options)
        shown = str(options.get("metavar"))
        if shown == FILE or "." in shown:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        return action


def completion(shell: str, parser: CompletedParser) -> str:
    """The script for a user to source (bash), to put on `fpath` (zsh) or into `completions` (fish)."""
    return shtab.complete(parser, shell) + "\n"
