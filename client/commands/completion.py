"""Shell completion for an argparse command with subcommands: a script for bash, zsh or fish, made from the parser.

What is completed: commands, flags, the choices of a flag or argument, and file names where a file is meant. A flag
whose value is none of these, such as a URL, is followed by nothing.
"""

import argparse
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

SHELLS = ("bash", "zsh", "fish")
FILE = "FILE"
"""A value that is shown by this name, or by one with an ending, is a file."""


@dataclass(frozen=True)
class Argument:
    """A flag, or an argument that has none: what its value may be, unless it takes none (`has_value`)."""

    flags: tuple[str, ...]
    help: str
    has_value: bool
    choices: tuple[str, ...]
    is_file: bool


Commands = dict[str, tuple[str, list[Argument]]]
"""Name -> what it does, and its arguments."""


def completion(shell: str, parser: argparse.ArgumentParser) -> str:
    """The script for a user to source (bash), to put on `fpath` (zsh) or into `completions` (fish)."""
    (subparsers,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    help_of = {action.dest: action.help or "" for action in subparsers._choices_actions}
    commands = {name: (help_of[name], list(_arguments(command))) for name, command in subparsers.choices.items()}
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](parser.prog, commands)


def _arguments(parser: argparse.ArgumentParser) -> Iterator[Argument]:
    for action in parser._actions:
        shown = str(action.metavar)
        yield Argument(
            tuple(action.option_strings),
            parser._get_formatter()._expand_help(action) if action.help else "",
            action.nargs != 0,
            tuple(map(str, action.choices or ())),
            shown == FILE or "." in shown,
        )


def _bash(program: str, commands: Commands) -> str:
    cases = [f'        *" ") words="{" ".join(commands)}" ;;']
    for name, (_, arguments) in commands.items():
        for argument in arguments:
            for flag in argument.flags if argument.has_value else ():
                cases.append(f'        "{name} {flag}") {_bash_value(argument)} ;;')
    for name, (_, arguments) in commands.items():
        flags = " ".join(flag for argument in arguments for flag in argument.flags)
        rest = "; ".join({_bash_value(argument): None for argument in arguments if not argument.flags}) or ":"
        cases.append(f'        "{name} "*) if [[ $current == -* ]]; then words="{flags}"; else {rest}; fi ;;')
    return "\n".join(
        [
            f"_{program}() {{",
            '    local current=${COMP_WORDS[COMP_CWORD]} previous="" words="" files=""',
            "    if [[ $COMP_CWORD -gt 1 ]]; then previous=${COMP_WORDS[COMP_CWORD-1]}; fi",
            '    case "${COMP_WORDS[1]} $previous" in',
            *cases,
            "    esac",
            '    COMPREPLY=($(compgen -W "$words" -- "$current"))',
            "    local IFS=$'\\n'",
            '    if [[ $files ]]; then compopt -o filenames 2>/dev/null; COMPREPLY+=($(compgen -f -- "$current")); fi',
            "}",
            f"complete -F _{program} {program}",
            "",
        ]
    )


def _bash_value(argument: Argument) -> str:
    return "files=yes" if argument.is_file else f'words="{" ".join(argument.choices)}"'


def _zsh(program: str, commands: Commands) -> str:
    lines = [f"#compdef {program}", f"_{program}() {{", "    local -a commands=("]
    lines += [f"        {shlex.quote(f'{name}:{help}')}" for name, (help, _) in commands.items()]
    lines += ["    )", "    if (( CURRENT == 2 )); then _describe command commands; return; fi"]
    lines += ["    shift words", "    (( CURRENT-- ))", "    case $words[1] in"]
    for name, (_, arguments) in commands.items():
        specs = " ".join(shlex.quote(spec) for argument in arguments for spec in _zsh_specs(argument))
        lines.append(f"        {name}) _arguments {specs} ;;")
    lines += ["    esac", "}"]
    begin = f'if [[ $funcstack[1] == _{program} ]]; then _{program} "$@"; else compdef _{program} {program}; fi'
    return "\n".join([*lines, f"{begin}  # read from fpath, in the middle of a completion, or sourced", ""])


def _zsh_specs(argument: Argument) -> Iterator[str]:
    value = "_files" if argument.is_file else f"({' '.join(argument.choices)})"
    help = argument.help.replace("[", "\\[").replace("]", "\\]")
    for flag in argument.flags:
        yield f"{flag}[{help}]" + (f":value:{value}" if argument.has_value else "")
    if not argument.flags:
        yield f":value:{value}"


def _fish(program: str, commands: Commands) -> str:
    lines = [f"complete -c {program} -f"]
    for name, (help, _) in commands.items():
        lines.append(f"complete -c {program} -n __fish_use_subcommand -a {name} -d {shlex.quote(help)}")
    for name, (_, arguments) in commands.items():
        for argument in arguments:
            words = [f"complete -c {program} -n '__fish_seen_subcommand_from {name}'"]
            words += [f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in argument.flags]
            words += ["-r"] if argument.flags and argument.has_value else []
            words += ["-F" if argument.is_file else "-f"] if argument.has_value else []
            words += [f"-a {shlex.quote(' '.join(argument.choices))}"] if argument.choices else []
            lines.append(" ".join([*words, f"-d {shlex.quote(argument.help)}"]))
    return "\n".join([*lines, ""])
