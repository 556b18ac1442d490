"""NeuCodec as a live stream: 16 kHz audio to 50 tokens a second, and tokens to 24 kHz audio.

    codec = load_codec("nano")
    encoder, decoder = codec.encoder_stream(), codec.decoder_stream()
    tokens = encoder.feed(pcm)      # float32 mono at 16 kHz, any length -> uint16 (n,)
    audio = decoder.feed(tokens)    # -> float32 at 24 kHz

The names of `__all__` load on first use: importing this package has no effect and needs no torch.
"""

from typing import TYPE_CHECKING

from neucodec_streaming.lazy import lazy_names

if TYPE_CHECKING:
    from neucodec_streaming.codec import Codec, load_codec
    from neucodec_streaming.config import StreamConfig
    from neucodec_streaming.errors import (
        AudioError,
        AuthError,
        CapacityError,
        ConfigError,
        DeviceError,
        InputError,
        LimitError,
        LocalProtocolError,
        LostDeviceError,
        MessageTooLarge,
        ModelError,
        OriginError,
        PathError,
        ProtocolError,
        SnapshotError,
        SpeechLMError,
        StreamingError,
        TimeLimitError,
        TokenError,
    )
    from neucodec_streaming.stream import DecoderStream, EncoderStream

__all__ = [
    "AudioError",
    "AuthError",
    "CapacityError",
    "Codec",
    "ConfigError",
    "DecoderStream",
    "DeviceError",
    "LostDeviceError",
    "EncoderStream",
    "InputError",
    "LimitError",
    "LocalProtocolError",
    "MessageTooLarge",
    "ModelError",
    "OriginError",
    "PathError",
    "ProtocolError",
    "SnapshotError",
    "SpeechLMError",
    "StreamConfig",
    "StreamingError",
    "TimeLimitError",
    "TokenError",
    "load_codec",
]
_MODULES = {
    "neucodec_streaming.codec": ("Codec", "load_codec"),
    "neucodec_streaming.config": ("StreamConfig",),
    "neucodec_streaming.errors": tuple(name for name in __all__ if name.endswith(("Error", "TooLarge"))),
    "neucodec_streaming.stream": ("DecoderStream", "EncoderStream"),
}
__getattr__ = lazy_names(__name__, _MODULES)


def __dir__() -> list[str]:
    return list(__all__)
