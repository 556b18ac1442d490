"""Sources of settings: a flag, else the environment, else the TOML file, else the default.

Every field of `Settings` is a flag (--max-sessions), a variable (NEUCODEC_MAX_SESSIONS) and a key (max_sessions) of the
file that --config or NEUCODEC_CONFIG names. Flags and variables are texts, parsed by the field's type; the file has
TOML values or the same texts. An unknown name is an error in flags and file. In the environment it is only reported,
since other programs share the prefix; --check-config rejects it. The client's variables are not settings.
"""

import argparse
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, fields
from difflib import get_close_matches
from typing import Any, get_origin

from neucodec_streaming.errors import ConfigError
from neucodec_streaming.server.settings.fields import (
    OWN_PAIR,
    PROFILES,
    Profiles,
    Settings,
    check,
    parse_batch_sizes,
    parse_profiles,
)
from neucodec_streaming.server.settings.spec import ENVIRONMENT, FILE, FLAG, entry_of, kind_of

PREFIX = "NEUCODEC_"
CONFIG_VARIABLE = "NEUCODEC_CONFIG"
OTHER_VARIABLES = (CONFIG_VARIABLE, "NEUCODEC_SERVER", "NEUCODEC_API_KEY")
"""Variables that are not settings: the file's name, and the client's."""
NONE = "none"
_FIELDS = {item.name: item for item in fields(Settings)}


@dataclass(frozen=True)
class Resolved:
    """Settings; for each that is not a default its source ("flag", "environment" or "file"); and a sentence about each
    environment variable that looks like a setting but is unknown.
    """

    settings: Settings
    origins: dict[str, str]
    unknown: tuple[str, ...] = ()


def resolve(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Resolved:
    """Combines flags (by field; None: not given; and `config`), environment and file.

    Raises ConfigError naming the source, the setting and valid values.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    path = flags.get("config") or environment.get(CONFIG_VARIABLE)
    for source, found in (
        (FILE, _from_file(path) if path else {}),
        (ENVIRONMENT, {name: environment[_variable(name)] for name in _FIELDS if _variable(name) in environment}),
        (FLAG, {name: flags[name] for name in _FIELDS if flags.get(name) is not None}),
    ):
        for name, given in found.items():
            where = {FILE: f"file {path}", ENVIRONMENT: _variable(name), FLAG: _flag(name)}[source]
            values[name] = _read(_FIELDS[name], given, source, where)
            origins[name] = source
    return Resolved(Settings(**values), origins, tuple(_unknown(environment)))


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds a flag for every setting that may be one, grouped as the settings are."""
    parser.add_argument("--config", metavar="FILE", help=f"TOML file of settings (or {CONFIG_VARIABLE})")
    groups: dict[str, Any] = {}
    for item in _FIELDS.values():
        entry = entry_of(item)
        group = groups[entry.group] = groups.get(entry.group) or parser.add_argument_group(entry.group)
        help = f"{entry.help} (default {default_text(item)})".replace("%", "%%")
        if FLAG not in entry.sources:
            group.description = f"{_variable(item.name)}, only in the environment: {entry.help}"
        elif item.type is bool:
            group.add_argument(_flag(item.name), action=argparse.BooleanOptionalAction, help=help)
        else:
            group.add_argument(_flag(item.name), metavar=_metavar(item), help=help)


def table(resolved: Resolved) -> str:
    """The settings in force as a TOML file, each with its source; secrets are masked and commented out."""
    lines: list[tuple[str, str]] = []
    group = ""
    for item in _FIELDS.values():
        entry, value = entry_of(item), getattr(resolved.settings, item.name)
        if entry.group != group:
            group = entry.group
            lines += [("", ""), (f"# {group}", "")] if lines else [(f"# {group}", "")]
        shown = f"{item.name} = {_toml(value)}"
        if entry.secret:
            count = len(value) if isinstance(value, tuple) else int(value is not None)
            shown = f"# {item.name}: {count} given, not shown"
        lines.append((shown, resolved.origins.get(item.name, "default")))
    width = max(len(shown) for shown, origin in lines if len(shown) <= 48)
    return "\n".join(f"{shown:{width}}  # {origin}" if origin else shown for shown, origin in lines)


def check_files(settings: Settings) -> None:
    """Raises ConfigError if a file that the settings name cannot be read."""
    for item in _FIELDS.values():
        path = getattr(settings, item.name)
        if entry_of(item).is_file and path is not None:
            try:
                with open(path, "rb"):
                    pass
            except OSError as error:
                raise ConfigError(
                    f"{item.name} {path!r} cannot be read ({error.strerror}): specify a readable file"
                ) from None


def _from_file(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            found = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"file {path} cannot be read ({error.strerror}): specify a TOML file of settings") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"file {path} is not valid TOML ({error}): write lines such as max_sessions = 64") from None
    for name in found:
        if name not in _FIELDS:
            raise ConfigError(f"file {path}: {name} is not a setting{_like(name)}")
    return found


def _unknown(environment: Mapping[str, str]) -> Iterator[str]:
    known = {*map(_variable, _FIELDS), *OTHER_VARIABLES}
    for variable in environment:
        if variable.startswith(PREFIX) and variable not in known:
            near = _like(variable.removeprefix(PREFIX).lower(), _variable)
            yield f"the environment has {variable}, which is not a setting{near}"


def _like(name: str, spelled: Callable[[str], str] = str) -> str:
    near = get_close_matches(name, _FIELDS)
    return (
        f": did you mean {' or '.join(map(spelled, near))}?" if near else ": neucodec-server --help lists the settings"
    )


def _read(item: Field, given: Any, source: str, where: str) -> Any:
    """Converts a source's value for Settings. Raises ConfigError naming `where`."""
    entry = entry_of(item)
    if source not in entry.sources:
        raise ConfigError(f"{where}: {item.name} is not allowed there: set {_variable(item.name)} in the environment")
    try:
        value = _value(item, given)
        check(item, value)
    except ConfigError as error:
        name = "" if source != FILE or item.name in str(error) else f"{item.name}: "
        raise ConfigError(f"{where}: {name}{error}") from None
    return value


def _value(item: Field, given: Any) -> Any:
    """The parsed value; unparsable ones are returned unchanged and rejected by `check`."""
    kind, may_be_none = kind_of(item)
    given = _as_text(given, kind)
    if isinstance(given, str):
        if may_be_none and given.strip() in ("", NONE):
            return None
        try:
            return _READERS[kind](given)
        except ValueError:
            return given
    return given


def _as_text(given: Any, kind: Any) -> Any:
    """A number, list or table of the file as text for the flag's parser; other values unchanged."""
    if isinstance(given, dict) and kind == Profiles:
        return ",".join(f"{name}={_pair(pair)}" for name, pair in given.items())
    if isinstance(given, list) and (kind == Profiles or get_origin(kind) is tuple):
        return ",".join(str(part) for part in given)
    if isinstance(given, (int, float)) and not isinstance(given, bool) and kind not in (int, float):
        return str(given)
    return given


def _pair(value: Any) -> str:
    """A pair of the file's table of profiles in text form."""
    return ":".join(map(str, value)) if isinstance(value, list) else str(value)


def _boolean(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.strip().lower() not in words:
        raise ValueError
    return words[text.strip().lower()]


def _texts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",")) if text.strip() not in ("", NONE) else ()


_READERS: dict[Any, Callable[[str], Any]] = {
    str: str,
    int: int,
    float: float,
    bool: _boolean,
    tuple[int, ...]: parse_batch_sizes,
    tuple[str, ...]: _texts,
    Profiles: parse_profiles,
}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _metavar(item: Field) -> str:
    entry, (kind, _) = entry_of(item), kind_of(item)
    if entry.choices:
        return "|".join(entry.choices)
    units = {"_per_s": "N", "_s": "SECONDS", "_seconds": "SECONDS", "_ms": "MS", "_bytes": "BYTES"}
    for ending, unit in units.items():
        if item.name.endswith(ending) and kind in (int, float):
            return unit
    if entry.is_file:
        return "FILE"
    return {int: "N", float: "X", str: item.name.upper()}.get(kind, "LIST")


def default_text(item: Field) -> str:
    """The default in the form of a flag, with that on CUDA if it differs."""
    entry = entry_of(item)
    text = value_text(entry.default)
    return text if entry.on_cuda is None else f"{text}; on CUDA {value_text(entry.on_cuda)}"


def value_text(value: Any) -> str:
    """A value in the form of a flag."""
    if value is None or value == ():
        return NONE
    if isinstance(value, dict):
        return ",".join(_profile_texts(value))
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _toml(value: Any) -> str:
    """A value in the form of the file; TOML has no null, so none is a text."""
    if isinstance(value, (bool, int, float)):
        return value_text(value)
    return json.dumps(list(value) if isinstance(value, tuple) else value_text(value))


def _profile_texts(profiles: Profiles) -> Iterator[str]:
    for name, pair in profiles.items():
        if name in PROFILES and PROFILES[name] == pair:
            yield name
        else:
            yield f"{name}={OWN_PAIR}" if pair is None else f"{name}={pair[0]}:{pair[1]}"
