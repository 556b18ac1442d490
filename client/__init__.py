"""The client of a live NeuCodec: microphone, files and speaker at one end, `neucodec.v1` at the other. No torch.

    async with connect("ws://127.0.0.1:8765", kind="encode") as connection:
        await connection.send(pcm)                      # float32 mono at 16 kHz, or tokens for kind="decode"
        await connection.end()
        async for event in connection:
            ...

`blocking(connect(...))` and `encode`, `decode`, `roundtrip` do without `async` (client.sync). The names of `__all__`
load on first use; importing this package has no effect.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from client.connection import Connection, connect
    from client.dial import Deadlines
    from client.errors import ClientError, DeadlineExceeded, Disconnected, Unreachable
    from client.events import Audio, Cleared, Done, Event, Flushed, Marked, Resumed, Stats, Tokens
    from client.sync import BlockingConnection, blocking, decode, encode, roundtrip

_NAMES = {
    "client.connection": ("Connection", "connect"),
    "client.dial": ("Deadlines",),
    "client.sync": ("BlockingConnection", "blocking", "decode", "encode", "roundtrip"),
    "client.events": ("Audio", "Cleared", "Done", "Event", "Flushed", "Marked", "Resumed", "Stats", "Tokens"),
    "client.errors": ("ClientError", "DeadlineExceeded", "Disconnected", "Unreachable"),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = [
    "Audio",
    "BlockingConnection",
    "Cleared",
    "ClientError",
    "Connection",
    "DeadlineExceeded",
    "Deadlines",
    "Disconnected",
    "Done",
    "Event",
    "Flushed",
    "Marked",
    "Resumed",
    "Stats",
    "Tokens",
    "Unreachable",
    "blocking",
    "connect",
    "decode",
    "encode",
    "roundtrip",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'client' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
