"""NeuCodec as a live stream: 16 kHz audio to 50 tokens a second, and tokens to 24 kHz audio.

The names of `__all__` load on first use, so that importing this package has no effect and needs no torch: the client
uses the audio and token formats of it without the model.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streaming.codec import load_codec
    from streaming.config import StreamConfig
    from streaming.errors import (
        AudioError,
        CapacityError,
        ConfigError,
        DeviceError,
        InputError,
        ModelError,
        ProtocolError,
        SnapshotError,
        StreamingError,
        TokenError,
    )
    from streaming.stream import DecoderStream, EncoderStream

__all__ = [
    "AudioError",
    "CapacityError",
    "ConfigError",
    "DecoderStream",
    "DeviceError",
    "EncoderStream",
    "InputError",
    "ModelError",
    "ProtocolError",
    "SnapshotError",
    "StreamConfig",
    "StreamingError",
    "TokenError",
    "load_codec",
]

_MODULES = {
    "load_codec": "streaming.codec",
    "StreamConfig": "streaming.config",
    "EncoderStream": "streaming.stream",
    "DecoderStream": "streaming.stream",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'streaming' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_MODULES.get(name, "streaming.errors")), name)


def __dir__() -> list[str]:
    return list(__all__)
