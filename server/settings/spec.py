"""Description of a setting (group, help, limits, sources) as metadata of a dataclass field."""

from dataclasses import Field, dataclass, field
from types import NoneType, UnionType
from typing import Any, get_args

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
    secret: bool
    is_file: bool

    @property
    def sources(self) -> tuple[str, ...]:
        """Where it may be set: a secret in the environment alone, since other users see command lines."""
        return (ENVIRONMENT,) if self.secret else (FLAG, ENVIRONMENT, FILE)


def setting(
    default: Any,
    group: str,
    help: str,
    *,
    on_cuda: Any = None,
    least: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
    is_file: bool = False,
) -> Any:
    """A field of Settings.

    `on_cuda`: the default on CUDA, if it differs; such a field is None until the device is known. `least`, `above`:
    limits of a number. `choices`: valid texts. `secret`: never shown, and set in the environment alone. `is_file`: the
    path of an existing file.
    """
    metadata = {"entry": SettingSpec(default, on_cuda, group, help, least, above, choices, secret, is_file)}
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
