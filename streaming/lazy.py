"""Names of a package that load on first use (PEP 562), so that importing it has no effect and needs no torch."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

_EXTRA_OF = {
    "torch": "server",
    "transformers": "server",
    "safetensors": "server",
    "prometheus_client": "server",
    "aiomqtt": "mqtt",
    "h11": "server",
    "httpx": "speak",
    "pyarrow": "bulk",
}
"""Top-level module that the base installation lacks -> the extra that installs it."""


def lazy_names(package: str, modules: Mapping[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """The `__getattr__` of `package`: loads a name from its module in `modules`.

    Raises AttributeError for other names, and ImportError naming the extra if a library is missing.
    """
    homes = {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {', '.join(sorted(homes))}")
        try:
            return getattr(import_module(homes[name]), name)
        except ModuleNotFoundError as error:
            raise missing_extra(error, f"{package}.{name}") from None

    return get


def missing_extra(error: ModuleNotFoundError, wanted: str) -> ImportError:
    """An ImportError that names the extra, if one installs the missing library; else `error`."""
    extra = _EXTRA_OF.get((error.name or "").partition(".")[0])
    if extra is None:
        return error
    return ImportError(f"{wanted} needs {error.name}: {installing(extra)}", name=error.name)


def installing(extra: str) -> str:
    """Advice to install an extra."""
    return f"install the extra '{extra}' (in the checkout: pip install '.[{extra}]')"
