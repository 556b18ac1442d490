"""Converts between a session's payload and its user's arrays and events."""

import numpy as np

from neucodec_streaming.audio import pcm_from_bytes, pcm_to_bytes
from neucodec_streaming.client.events import NO_SAMPLES, Audio, Tokens
from neucodec_streaming.protocol.messages import StreamFormat
from neucodec_streaming.tokens import tokens_from_bytes, tokens_to_bytes


def to_payload(chunk: np.ndarray, stream: StreamFormat) -> bytes:
    """Encodes audio or tokens (n,) in the format of `stream`. Raises AudioError or TokenError."""
    return tokens_to_bytes(chunk) if stream.kind == "tokens" else pcm_to_bytes(chunk, stream.format)


def from_payload(payload: bytes, stream: StreamFormat, position: int, raw: bool = False) -> Audio | Tokens:
    """The event of payload that starts at that position of the stream; `raw`: without its samples."""
    if stream.kind == "tokens":
        return Tokens(tokens_from_bytes(payload), position)
    if raw:
        return Audio(NO_SAMPLES, position, payload)
    return Audio(pcm_from_bytes(payload, stream.format), position)
