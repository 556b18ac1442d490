"""The stand-in model yields all of its tokens, one at a time, no faster than its pace allows."""

import asyncio
import random
import wave

import numpy as np

from demos.language_model import Pace, recorded_tokens, spoken
from neucodec_streaming.audio import pcm_to_bytes
from tests.server.hosting import hosted
from tests.streaming.engine.fake import FakeRunner, speech, tokens_of

TOKENS = np.arange(40, dtype=np.uint16)


async def said(pace: Pace, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    loop = asyncio.get_running_loop()
    start = loop.time()
    told, moments = [], []
    async for token in spoken(TOKENS, pace, random.Random(seed)):
        told.append(token)
        moments.append(loop.time() - start)
    return told, np.array(moments)


async def test_tokens_come_once_in_order_and_only_after_the_prompt_is_read():
    told, moments = await said(Pace(prompt_s=0.1, tokens_per_second=2000, longest_pause_s=0))
    assert np.array_equal(np.concatenate(told), TOKENS) and {token.size for token in told} == {1}
    assert moments[0] >= 0.1


async def test_pauses_occur_between_tokens():
    _, moments = await said(Pace(prompt_s=0, tokens_per_second=2000, pause_every=10, longest_pause_s=0.2))
    gaps = np.diff(moments)
    assert gaps.max() > 0.05 > 10 * np.median(gaps)


async def test_recorded_tokens_equal_those_of_the_server(tmp_path):
    levels = list(range(1, 12))
    path = tmp_path / "speech.wav"
    write_wav(path, speech(*levels))
    with hosted(FakeRunner()) as server:
        assert np.array_equal(await recorded_tokens(server.url, path), tokens_of(levels))


def write_wav(path, pcm: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(pcm_to_bytes(pcm))
