"""Writes the pages that follow from the code: `python docs/reference.py` makes settings.md and command-line.md.

tests/docs/test_pages.py fails while a committed page differs from what this would write.
"""

import argparse
import io
import os
from dataclasses import fields
from pathlib import Path

from neucodec_streaming.client import cli
from neucodec_streaming.server.settings.fields import Settings
from neucodec_streaming.server.settings.sources import default_text
from neucodec_streaming.server.settings.spec import ENVIRONMENT, FILE, FLAG, entry_of

DOCS = Path(__file__).parent
SETTINGS = """# Settings

Every setting of the server is a flag (`--max-sessions 8`), an environment variable (`NEUCODEC_MAX_SESSIONS=8`) and a
key of the TOML file that `--config` names (`max_sessions = 8`). Flags override the environment, which overrides the
file.
`neucodec-server --check-config` prints the settings in force with their sources and checks files, model and device.

This page is generated from the code by `python docs/reference.py`.
"""
COMMANDS = """# Command line

`neucodec` is the client, `neucodec-server` the server; its flags are its [settings](settings.md). Exit codes are in the
[README](../README.md#exit-codes). `source <(neucodec completion bash)` completes commands, flags and file names.

This page is generated from the code by `python docs/reference.py`.
"""


def settings_page() -> str:
    """All settings by group, with default and meaning."""
    lines, group = [SETTINGS], ""
    for item in fields(Settings):
        entry = entry_of(item)
        if entry.group != group:
            group = entry.group
            lines.append(f"\n## {group[0].upper()}{group[1:]}\n\n| setting | default | meaning |\n|---|---|---|")
        only = "" if set(entry.sources) == {FLAG, ENVIRONMENT, FILE} else f" ({' and '.join(entry.sources)} only)"
        default = "" if entry.secret else f"`{default_text(item)}`"
        help = entry.help.replace("|", "\\|")
        lines.append(f"| `{item.name}`{only} | {default} | {help} |")
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    """The help of every command."""
    os.environ["COLUMNS"] = "110"
    parser = cli._parser()
    lines = [COMMANDS, block(parser)]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            lines += [f"## neucodec {name}\n\n{block(command)}" for name, command in action.choices.items()]
    return "\n".join(lines)


def block(parser: argparse.ArgumentParser) -> str:
    """The help of one parser as a block of code."""
    text = io.StringIO()
    parser.print_help(text)
    return f"```text\n{text.getvalue().rstrip()}\n```\n"


PAGES = {"settings.md": settings_page, "command-line.md": commands_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
