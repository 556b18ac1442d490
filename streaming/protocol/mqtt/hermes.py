"""WAV as Rhasspy's satellites send and take it: each PUBLISH is a file of its own. Standard library only."""

import io
import wave

from neucodec_streaming.errors import AudioError
from neucodec_streaming.protocol.messages import StreamFormat

MAX_WAV_SECONDS = 60
"""An utterance that is longer goes out in several files."""


def samples_of(payload: bytes, stream: StreamFormat) -> bytes:
    """The samples of a mono WAV file with 16 bits a sample, at the stream's rate. Raises AudioError."""
    try:
        with wave.open(io.BytesIO(payload)) as file:
            found = (file.getnchannels(), 8 * file.getsampwidth(), file.getframerate())
            samples = file.readframes(file.getnframes())
    except (wave.Error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise AudioError(f"payload of {len(payload)} bytes is no WAV file ({error}): audioFrame carries one") from None
    if found != (1, 16, stream.rate):
        raise AudioError(
            f"WAV with {found[0]} channels, {found[1]} bits, {found[2]} Hz: the session takes 1, 16, {stream.rate}"
        )
    return samples


def wav_of(samples: bytes, stream: StreamFormat) -> bytes:
    """A WAV file of s16le samples."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(stream.rate)
        writer.writeframes(samples)
    return file.getvalue()
