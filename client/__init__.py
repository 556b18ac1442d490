"""The client of a live NeuCodec: microphone, files and speaker at one end, `neucodec.v1` at the other. No torch.

    async with connect("ws://127.0.0.1:8765", kind="encode") as connection:
        await connection.send(pcm)                      # float32 mono at 16 kHz, or tokens for kind="decode"
        await connection.end()
        async for event in connection:
            ...

The names of `__all__` load on first use; importing this package has no effect.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from client.connection import Connection, connect
    from client.errors import ClientError, DeadlineExceeded, Disconnected, Unreachable
    from client.events import Audio, Cleared, Done, Event, Flushed, Marked, Resumed, Stats, Tokens

__all__ = [
    "Audio",
    "Cleared",
    "ClientError",
    "Connection",
    "DeadlineExceeded",
    "Disconnected",
    "Done",
    "Event",
    "Flushed",
    "Marked",
    "Resumed",
    "Stats",
    "Tokens",
    "Unreachable",
    "connect",
]

_MODULES = {"connect": "client.connection", "Connection": "client.connection"}
_MODULES |= dict.fromkeys(("ClientError", "DeadlineExceeded", "Disconnected", "Unreachable"), "client.errors")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'client' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_MODULES.get(name, "client.events")), name)


def __dir__() -> list[str]:
    return list(__all__)
