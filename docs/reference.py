"""Writes the pages that follow from the code: `python docs/reference.py` makes settings.md and command-line.md.

tests/docs/test_pages.py fails while a committed page differs from what this would write.
"""

import argparse
import os
from collections import Counter
from dataclasses import fields
from pathlib import Path

from neucodec_streaming.client import cli
from neucodec_streaming.server.settings.fields import Settings
from neucodec_streaming.server.settings.sources import default_text
from neucodec_streaming.server.settings.spec import ENVIRONMENT, FILE, FLAG, entry_of

DOCS = Path(__file__).parent
SETTINGS = """# Settings

Every setting of the server is a flag (`--max-sessions 8`), an environment variable (`NEUCODEC_MAX_SESSIONS=8`) and a
key of the TOML file that `--config` names (`max_sessions = 8`). Flags override the environment, the environment the
file. `neucodec-server --check-config` prints the settings in force with their sources, and checks files, model and
device.

This page is generated from the code by `python docs/reference.py`.
"""
COMMANDS = """# Command line

`neucodec` is the client, `neucodec-server` the server; its flags are its [settings](settings.md). The exit codes of
`neucodec` are in the [README](../README.md#exit-codes). `source <(neucodec completion bash)` completes commands, flags
and file names.

This page is generated from the code by `python docs/reference.py`.
"""
SHARED_BY = 3
"""Options of at least this many commands are explained once, at the top."""
SHARED = """## Shared options

The usage of each command says which of these it has.
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
    """The help of every command, with the options that several commands share once at the top."""
    os.environ["COLUMNS"] = "110"
    parser = cli._parser()
    (found,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    commands = found.choices
    counts = Counter(_key(action) for command in commands.values() for action in command._actions)
    shared = {key for key, count in counts.items() if key[0] and count >= SHARED_BY}
    listed = {_key(action): action for command in commands.values() for action in command._actions}
    options = [action for key, action in listed.items() if key in shared]
    lines = [COMMANDS, _block(parser.format_help()), SHARED, _block(_help(parser, [("options", options)], usage=False))]
    for name, command in commands.items():
        own = [
            (group.title, [action for action in group._group_actions if _key(action) not in shared])
            for group in command._action_groups
        ]
        lines.append(f"## neucodec {name}\n\n{_block(_help(command, own))}")
    return "\n".join(lines)


def _key(action: argparse.Action) -> tuple[tuple[str, ...], str | None]:
    return tuple(action.option_strings), action.help


def _help(
    parser: argparse.ArgumentParser, groups: list[tuple[str | None, list[argparse.Action]]], usage: bool = True
) -> str:
    """The parser's usage, and the help of the given arguments by group."""
    formatter = parser._get_formatter()
    if usage:
        formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups)
    for title, actions in groups:
        formatter.start_section(title)
        formatter.add_arguments(actions)
        formatter.end_section()
    return formatter.format_help()


def _block(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```\n"


PAGES = {"settings.md": settings_page, "command-line.md": commands_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
