"""Description of a setting (group, help, limits, sources) as metadata of a dataclass field."""

from dataclasses import Field, dataclass, field
from types import NoneType, UnionType
from typing import Any, get_args

MODEL, NETWORK, ACCESS, MQTT, SPEECH, SESSIONS, QUEUES, TIMES, LOGGING = (
    "model and device",
    "network",
    "access",
    "sessions over MQTT",
    "POST /v1/audio/speech",
    "sessions and load",
    "queues",
    "times",
    "logging",
)
FLAG, ENVIRONMENT, FILE = "flag", "environment", "file"


@dataclass(frozen=True)
class SettingSpec:
    """Description of a setting beyond name and type; see `setting`."""

    default: Any
    on_cuda: Any
    group: str
    help: str
    least: float | None
    above: float | None
    choices: tuple[str, ...]
    sources: tuple[str, ...]
    secret: bool
    is_file: bool


def setting(
    default: Any,
    group: str,
    help: str,
    *,
    on_cuda: Any = None,
    least: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
    sources: tuple[str, ...] = (FLAG, ENVIRONMENT, FILE),
    secret: bool = False,
    is_file: bool = False,
) -> Any:
    """A field of Settings.

    `on_cuda`: the default on CUDA, if it differs; such a field is None until the device is known. `least`, `above`:
    limits of a number. `choices`: valid texts. `sources`: where it may be set; a secret has no flag, since command
    lines are visible to other users. `secret`: never shown. `is_file`: the path of an existing file.
    """
    assert not (secret and FLAG in sources), "a secret on the command line"
    metadata = {"entry": SettingSpec(default, on_cuda, group, help, least, above, choices, sources, secret, is_file)}
    default = default if on_cuda is None else None
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, repr=not secret, metadata=metadata)


def entry_of(item: Field) -> SettingSpec:
    """The description of a field."""
    return item.metadata["entry"]


def kind_of(item: Field) -> tuple[Any, bool]:
    """The type of a field's values, and whether None is allowed."""
    if isinstance(item.type, UnionType):
        (kind,) = (part for part in get_args(item.type) if part is not NoneType)
        return kind, True
    return item.type, False
