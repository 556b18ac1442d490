"""The configuration of a stream, and the latencies that follow from it. Pure numbers: no torch, no I/O.

A stream is stepped in chunks of `chunk_frames`, each computed together with `lookahead_frames` that are committed
later, over `context_frames` of remembered keys and values. One frame is one token: 20 ms.
"""

from dataclasses import dataclass
from numbers import Integral

from neucodec_streaming.errors import ConfigError

FRAME_MS = 20
TOKENS_PER_SECOND = 50
INPUT_RATE = 16_000
OUTPUT_RATE = 24_000
INPUT_HOP = 320
"""Samples at 16 kHz for each token."""
OUTPUT_HOP = 480
"""Samples at 24 kHz for each token."""
MEL_OVERHANG = 240
"""Samples after a frame's end that its second mel window reads (400 - 160)."""
ISTFT_REACH = 2
"""Following frames that overlap one hop of audio."""
CODEBOOK_SIZE = 65_536
MIN_VOICE_TOKENS = 100
"""Two seconds; shorter references help less, and not reliably (docs/voices.md)."""
START_FRAMES = 3
"""Frames after which no layer reaches back to a stream's start (antialias.SIDE at one element a frame)."""


@dataclass(frozen=True)
class StreamConfig:
    """How a stream is cut: chunk >= 1, lookahead >= 0, context >= 0, all in frames of 20 ms.

    `prior_weight` is the number of frames that the normalisation prior of the model's `stream.json` counts as: None
    takes the model's own, 0 switches the priors off. Raises ConfigError naming the field.
    """

    chunk_frames: int = 5
    lookahead_frames: int = 5
    context_frames: int = 250
    prior_weight: float | None = None

    def __post_init__(self) -> None:
        for field, least in (("chunk_frames", 1), ("lookahead_frames", 0), ("context_frames", 0)):
            value = getattr(self, field)
            if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{field} is {value!r}: expected a whole number of 20 ms frames, at least {least}")
            object.__setattr__(self, field, int(value))  # numpy's integers are not JSON, as snapshots need
        weight = self.prior_weight
        if weight is not None and not (isinstance(weight, (int, float)) and 0 <= weight < float("inf")):
            raise ConfigError(f"prior_weight is {weight!r}: expected a finite number of frames >= 0, or None")

    @property
    def window_frames(self) -> int:
        """Frames that one step computes: chunk and lookahead."""
        return self.chunk_frames + self.lookahead_frames

    @property
    def synthesis_lag_frames(self) -> int:
        """Hops by which decoded audio lags behind the committed frames, because the ISTFT lacks frames to the right."""
        return max(0, ISTFT_REACH - self.lookahead_frames)

    @property
    def encode_latency_ms(self) -> float:
        """The longest wait of a sample for later samples before its token is emitted."""
        return self.window_frames * FRAME_MS + MEL_OVERHANG * 1000 / INPUT_RATE

    @property
    def decode_latency_ms(self) -> float:
        """The longest wait of a token for later tokens before its audio is emitted."""
        return float((self.window_frames + self.synthesis_lag_frames) * FRAME_MS)


def input_needed(kind: str, config: StreamConfig, frames: int) -> int:
    """Input of a stream that must have arrived before `frames` frames of its output can be emitted.

    In samples at 16 kHz; for kind "decode" in tokens. A round trip uses `config` in both parts.
    """
    chunk, lag = config.chunk_frames, 0 if kind == "encode" else config.synthesis_lag_frames
    needed = -(-(frames + lag) // chunk) * chunk + config.lookahead_frames
    if kind == "decode":
        return needed
    return needed * INPUT_HOP + MEL_OVERHANG if kind == "encode" else input_needed("encode", config, needed)


def roundtrip_latency_ms(encode: StreamConfig, decode: StreamConfig) -> float:
    """The longest wait of a sample for later samples before its audio is emitted by encoder and decoder in sequence.

    Tokens arrive in chunks, so this is less than the sum of both latencies.
    """
    period = encode.chunk_frames * decode.chunk_frames
    longest = 0.0
    first_steady = decode.synthesis_lag_frames // decode.chunk_frames + 1
    for step in range(first_steady, first_steady + period):
        needed_tokens = (step + 1) * decode.chunk_frames + decode.lookahead_frames
        encoder_steps = -(-needed_tokens // encode.chunk_frames)
        leaves_ms = (encoder_steps - 1) * encode.chunk_frames * FRAME_MS + encode.encode_latency_ms
        oldest_hop = step * decode.chunk_frames - decode.synthesis_lag_frames
        longest = max(longest, leaves_ms - oldest_hop * FRAME_MS)
    return longest
