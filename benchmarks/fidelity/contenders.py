"""Three ways to code recordings as they arrive, with one interface: streamed, sliding window, and NeuTTS's window."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch

from benchmarks.fidelity import sliding_window as sliding
from benchmarks.fidelity.batched_streams import stream_all
from neucodec_streaming import StreamConfig
from neucodec_streaming.codec import Codec
from neucodec_streaming.config import FRAME_MS, INPUT_HOP, roundtrip_latency_ms
from neucodec_streaming.stepper import Stepper


class Contender(Protocol):
    """A way to code at one algorithmic latency; `costs` are of one live session."""

    name: str
    config: StreamConfig | None

    @property
    def latencies_ms(self) -> dict[str, float]: ...

    def encode(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """float32 at 16 kHz (T,) each -> tokens uint16 (T // 320,) each."""

    def decode(self, recordings: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """Tokens uint16 (F,) each -> for each its pieces of audio at 24 kHz, one per step."""

    def costs(self) -> dict[str, float]:
        """Returns the seconds of computation per second of one session's audio: encode and decode."""


class Streamed:
    name = "streamed"

    def __init__(self, codec: Codec, config: StreamConfig) -> None:
        self.codec, self.config = codec, config

    @property
    def latencies_ms(self) -> dict[str, float]:
        return config_latencies_ms(self.config)

    def encode(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        pieces = stream_all(self.codec.encoder(self.config), recordings)
        return [np.concatenate(parts) for parts in pieces]

    def decode(self, recordings: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        return stream_all(self.codec.decoder(self.config), recordings)

    def costs(self) -> dict[str, float]:
        chunk_s = self.config.chunk_frames * FRAME_MS / 1000
        steppers = (self.codec.encoder(self.config), self.codec.decoder(self.config))
        return {f"{stepper.kind}_cost": _step_s(stepper) / chunk_s for stepper in steppers}


class Sliding:
    """The offline model on a window for every chunk, at the latency of `config`."""

    name = "sliding"

    def __init__(self, codec: Codec, config: StreamConfig) -> None:
        self.codec, self.config = codec, config
        self.encoding, self.decoding = sliding.encode_geometry(config), sliding.decode_geometry(config)

    @property
    def latencies_ms(self) -> dict[str, float]:
        return config_latencies_ms(self.config)

    def encode(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        return sliding.encode(self.codec, recordings, self.encoding)

    def decode(self, recordings: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        return sliding.decode(self.codec, recordings, self.decoding)

    def costs(self) -> dict[str, float]:
        chunk_s = self.config.chunk_frames * FRAME_MS / 1000
        pcm, tokens = np.zeros(self.encoding.frames * INPUT_HOP, np.float32), np.zeros(self.decoding.frames, np.uint16)
        encode_s, decode_s = _median_s(lambda: self.codec.encode(pcm)), _median_s(lambda: self.codec.decode(tokens))
        return {"encode_cost": encode_s / chunk_s, "decode_cost": decode_s / chunk_s}


class NeuTTS:
    """The reference's streaming decoder; tokens come from the offline encoder, since it has no streaming one."""

    name = "NeuTTS"
    config = None

    def __init__(self, codec: Codec) -> None:
        self.codec = codec

    @property
    def latencies_ms(self) -> dict[str, float]:
        return {"decode_ms": sliding.NEUTTS_LATENCY_MS}

    def encode(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [self.codec.encode(pcm) for pcm in recordings]

    def decode(self, recordings: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        return sliding.decode(self.codec, recordings, sliding.NEUTTS)

    def costs(self) -> dict[str, float]:
        tokens = np.zeros(sliding.NEUTTS.frames, np.uint16)
        return {"decode_cost": _median_s(lambda: self.codec.decode(tokens)) / (sliding.NEUTTS.new * FRAME_MS / 1000)}


def config_latencies_ms(config: StreamConfig) -> dict[str, float]:
    return {
        "encode_ms": config.encode_latency_ms,
        "decode_ms": config.decode_latency_ms,
        "roundtrip_ms": roundtrip_latency_ms(config, config),
    }


def _step_s(stepper: Stepper) -> float:
    """The time does not depend on the age of the stream."""
    state, slot = stepper.new_state(1), torch.zeros(1, dtype=torch.int64)
    x = torch.zeros(1, *stepper.window_shape, dtype=torch.float32 if stepper.kind == "encode" else torch.int64)
    valid, commit = slot + stepper.config.window_frames, slot + stepper.config.chunk_frames
    return _median_s(lambda: stepper.step(x, state, slot, valid, commit))


def _median_s(call: Callable[[], object], times: int = 7) -> float:
    call()
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
