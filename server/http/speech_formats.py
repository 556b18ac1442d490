"""Audio formats of POST /v1/audio/speech, encoded piece by piece: pcm, wav, opus; plain, or in server-sent events."""

import asyncio
import base64
import io
import json
from typing import Any

import numpy as np
import soundfile

from neucodec_streaming.formats import streaming_wav_header

CONTENT_TYPES = {"wav": "audio/wav", "pcm": "audio/pcm", "opus": "audio/ogg"}
"""Values of response_format; the first one is the default."""
OGG_PAGE_MS = 100.0
_SET_OGG_PAGE_LATENCY_MS = 0x1302  # command number of libsndfile's sf_command; OGG pages last a second otherwise


def response_formats() -> tuple[str, ...]:
    """The formats that this installation supports."""
    has_opus = "OPUS" in soundfile.available_subtypes("OGG") if "OGG" in soundfile.available_formats() else False
    return tuple(name for name in CONTENT_TYPES if name != "opus" or has_opus)


class PcmEncoder:
    """s16le unchanged, after a WAV header if `is_wav`: feed(bytes) -> bytes, finish() -> bytes."""

    def __init__(self, rate: int, is_wav: bool) -> None:
        self._head = streaming_wav_header(rate) if is_wav else b""

    async def feed(self, payload: bytes) -> bytes:
        """Encodes more audio."""
        head, self._head = self._head, b""
        return head + payload

    async def finish(self) -> bytes:
        """Ends the audio."""
        return await self.feed(b"")


class OpusEncoder:
    """Ogg Opus by libsndfile, on a thread: feed(s16le bytes) -> bytes, finish() -> bytes."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._written = io.BytesIO()
        self._file: soundfile.SoundFile | None = None

    async def feed(self, payload: bytes) -> bytes:
        """Encodes more audio; returns pages every OGG_PAGE_MS."""
        return await asyncio.to_thread(self._feed, payload)

    async def finish(self) -> bytes:
        """Ends the audio."""
        return await asyncio.to_thread(self._finish)

    def _feed(self, payload: bytes) -> bytes:
        if self._file is None:
            self._file = soundfile.SoundFile(
                self._written, "w", samplerate=self._rate, channels=1, format="OGG", subtype="OPUS"
            )
            latency = soundfile._ffi.new("double*", OGG_PAGE_MS)
            soundfile._snd.sf_command(self._file._file, _SET_OGG_PAGE_LATENCY_MS, latency, 8)
        self._file.write(np.frombuffer(payload, "<i2"))
        return self._taken()

    def _finish(self) -> bytes:
        self._feed(b"")
        assert self._file is not None
        self._file.close()
        return self._taken()

    def _taken(self) -> bytes:
        written = self._written.getvalue()
        self._written.seek(0)
        self._written.truncate()
        return written


def make_encoder(response_format: str, rate: int) -> PcmEncoder | OpusEncoder:
    """The encoder for one of CONTENT_TYPES."""
    return OpusEncoder(rate) if response_format == "opus" else PcmEncoder(rate, response_format == "wav")


def audio_event(data: bytes) -> bytes:
    """Audio as an event of OpenAI's `stream_format: sse`."""
    return event({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()})


def done_event(tokens: int) -> bytes:
    """The last event of an answer."""
    usage = {"input_tokens": 0, "output_tokens": tokens, "total_tokens": tokens}
    return event({"type": "speech.audio.done", "usage": usage})


def event(body: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(body)}\n\n".encode()
