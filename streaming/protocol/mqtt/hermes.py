"""WAV messages of Rhasspy satellites: each PUBLISH is a complete file. Standard library only."""

import io
import struct
import wave

from neucodec_streaming.errors import AudioError
from neucodec_streaming.protocol.messages import StreamFormat

MAX_WAV_SECONDS = 60
"""Longer utterances are split into several files."""
MAX_CHANNELS = 8
_SIGNED = bytes(value ^ 0x80 for value in range(256))


def samples_of(payload: bytes, stream: StreamFormat) -> bytes:
    """Decodes a WAV file at the stream's rate to s16le: channels are averaged, 8, 24 and 32 bits reduced to 16.

    Raises AudioError.
    """
    try:
        with wave.open(io.BytesIO(payload)) as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            samples = file.readframes(file.getnframes())
    except (wave.Error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise AudioError(
            f"payload of {len(payload)} bytes is not a WAV file ({error}): send one in each audioFrame"
        ) from None
    if rate != stream.rate or channels > MAX_CHANNELS:
        raise AudioError(
            f"WAV with {channels} channels at {rate} Hz: the session expects 1 to {MAX_CHANNELS} at {stream.rate} Hz"
        )
    samples = samples[: len(samples) // (channels * width) * channels * width]
    return _downmixed(_sixteen_bits(samples, width), channels)


def _sixteen_bits(samples: bytes, width: int) -> bytes:
    """Converts samples of `width` bytes to s16le."""
    if width == 2:
        return samples
    converted = bytearray(len(samples) // width * 2)
    if width == 1:  # unsigned
        converted[1::2] = samples.translate(_SIGNED)
    else:
        converted[0::2], converted[1::2] = samples[width - 2 :: width], samples[width - 1 :: width]
    return bytes(converted)


def _downmixed(samples: bytes, channels: int) -> bytes:
    if channels == 1:
        return samples
    values = struct.unpack(f"<{len(samples) // 2}h", samples)
    means = [
        sum(frame) // channels for frame in zip(*(values[each::channels] for each in range(channels)), strict=True)
    ]
    return struct.pack(f"<{len(means)}h", *means)


def wav_of(samples: bytes, stream: StreamFormat) -> bytes:
    """Encodes s16le samples as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(stream.rate)
        writer.writeframes(samples)
    return file.getvalue()
