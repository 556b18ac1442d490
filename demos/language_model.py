"""A stand-in for a speech language model: tokens of recorded speech, one by one, as unevenly as a model makes them.

It reads its prompt first; then a token takes as long as an exponential distribution says, and now and then a pause is
in it: another user's request, memory to be freed. On average it is faster than speech, 50 tokens a second, or nobody
could play it without a stutter.
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


@dataclass(frozen=True)
class Pace:
    """How fast tokens come; `pause_every` is how many tokens there are from pause to pause on average."""

    prompt_s: float = 0.25
    tokens_per_second: float = 75.0
    pause_every: int = 50
    longest_pause_s: float = 0.2


async def recorded_tokens(url: str, recording: Path) -> np.ndarray:
    """What a WAV or FLAC file says: uint16 (n,), encoded by the server at `url`."""
    parts: list[np.ndarray] = []
    async with connect(url, kind="encode") as connection:
        await transfer(connection, AudioReader(recording, INPUT_RATE), parts.append)
    return np.concatenate(parts)


async def spoken(tokens: np.ndarray, pace: Pace, rng: random.Random) -> AsyncIterator[np.ndarray]:
    """uint16 (n,) one at a time, each (1,), each at its moment."""
    loop = asyncio.get_running_loop()
    moment = loop.time() + pace.prompt_s
    for start in range(tokens.size):
        moment += rng.expovariate(pace.tokens_per_second)
        if rng.random() * pace.pause_every < 1:
            moment += rng.uniform(0, pace.longest_pause_s)
        await asyncio.sleep(max(0.0, moment - loop.time()))
        yield tokens[start : start + 1]
