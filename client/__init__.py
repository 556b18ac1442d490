"""The client of a live NeuCodec: microphone, files and speaker at one end, `neucodec.v1` at the other. No torch.

    async with connect("ws://127.0.0.1:8765", kind="encode") as connection:
        await connection.send(pcm)                      # float32 mono at 16 kHz, or tokens for kind="decode"
        await connection.end()
        async for event in connection:
            ...

`blocking(connect(...))` and `encode`, `decode`, `roundtrip` need no `async` (`neucodec_streaming.client.sync`). The
names of `__all__` load on first use; importing this package has no effect.
"""

from typing import TYPE_CHECKING

from neucodec_streaming.lazy import lazy_names

if TYPE_CHECKING:
    from neucodec_streaming.client.connection import Connection, connect
    from neucodec_streaming.client.devices import Microphone, Speaker
    from neucodec_streaming.client.dial import Deadlines
    from neucodec_streaming.client.errors import (
        ClientError,
        DeadlineExceeded,
        Disconnected,
        FileError,
        SoundDeviceError,
        Unreachable,
    )
    from neucodec_streaming.client.events import (
        Audio,
        Cleared,
        Done,
        Event,
        Flushed,
        Marked,
        Primed,
        Resumed,
        Stats,
        Tokens,
    )
    from neucodec_streaming.client.sync import BlockingConnection, blocking, decode, encode, roundtrip

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
    "FileError",
    "Flushed",
    "Marked",
    "Microphone",
    "Primed",
    "Resumed",
    "SoundDeviceError",
    "Speaker",
    "Stats",
    "Tokens",
    "Unreachable",
    "blocking",
    "connect",
    "decode",
    "encode",
    "roundtrip",
]
_MODULES = {
    "neucodec_streaming.client.connection": ("Connection", "connect"),
    "neucodec_streaming.client.devices": ("Microphone", "Speaker"),
    "neucodec_streaming.client.dial": ("Deadlines",),
    "neucodec_streaming.client.errors": (
        "ClientError",
        "DeadlineExceeded",
        "Disconnected",
        "FileError",
        "SoundDeviceError",
        "Unreachable",
    ),
    "neucodec_streaming.client.events": (
        "Audio",
        "Cleared",
        "Done",
        "Event",
        "Flushed",
        "Marked",
        "Primed",
        "Resumed",
        "Stats",
        "Tokens",
    ),
    "neucodec_streaming.client.sync": ("BlockingConnection", "blocking", "decode", "encode", "roundtrip"),
}
__getattr__ = lazy_names(__name__, _MODULES)


def __dir__() -> list[str]:
    return list(__all__)
