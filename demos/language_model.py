"""A stand-in for a speech language model: tokens of recorded speech, one by one, at a model's uneven pace.

The time between tokens is exponentially distributed, with occasional pauses, as caused by another request or by garbage
collection. On average it is faster than speech, which is 50 tokens a second; otherwise playback would stutter.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neucodec_streaming.client.connection import connect
from neucodec_streaming.client.files import AudioReader
from neucodec_streaming.client.transfer import transfer
from neucodec_streaming.config import INPUT_RATE

RECORDING = Path(__file__).parent / "data" / "speech.flac"


@dataclass(frozen=True)
class Pace:
    """`pause_every` is the mean number of tokens between pauses."""

    prompt_s: float = 0.25
    tokens_per_second: float = 75.0
    pause_every: int = 50
    longest_pause_s: float = 0.2


async def recorded_tokens(url: str, recording: Path) -> np.ndarray:
    """Encodes a WAV or FLAC file at the server at `url`; returns uint16 (n,)."""
    parts: list[np.ndarray] = []
    async with connect(url, kind="encode") as connection:
        await transfer(connection, AudioReader(recording, INPUT_RATE), parts.append)
    return np.concatenate(parts)


async def spoken(tokens: np.ndarray, pace: Pace, rng: random.Random) -> AsyncIterator[np.ndarray]:
    """Yields each token, uint16 (1,), at the pace of a model."""
    loop = asyncio.get_running_loop()
    moment = loop.time() + pace.prompt_s
    for start in range(tokens.size):
        moment += rng.expovariate(pace.tokens_per_second)
        if rng.random() * pace.pause_every < 1:
            moment += rng.uniform(0, pace.longest_pause_s)
        await asyncio.sleep(max(0.0, moment - loop.time()))
        yield tokens[start : start + 1]
