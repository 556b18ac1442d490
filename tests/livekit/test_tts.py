"""Text to speech as LiveKit Agents calls it, between the stand-in language model and the fake server.

livekit-agents is not part of the extra dev because of its many dependencies: pip install '.[livekit]'.
"""

import asyncio
from contextlib import asynccontextmanager

import numpy as np
import pytest
import soundfile

pytest.importorskip("livekit.agents", reason="needs the extra livekit")

from livekit.agents import APIConnectionError, APIConnectOptions

from demos.language_model import Pace
from demos.speak_livekit import speak
from demos.speech_lm_server import stand_in
from neucodec_streaming.client.livekit import NeuCodecTTS
from neucodec_streaming.protocol.speech_lm import SpeechLMSpec
from tests.client.fake_server import fake_server

FAST = Pace(prompt_s=0, tokens_per_second=20_000, pause_every=10**9)
SLOW = Pace(prompt_s=0, tokens_per_second=500, pause_every=10**9)
TOKENS = np.arange(1, 41, dtype=np.uint16)
ONCE = APIConnectOptions(max_retry=0)


@asynccontextmanager
async def speaking(pace, tokens=TOKENS, **options):
    async with (
        stand_in(tokens, pace) as model,
        fake_server() as server,
        NeuCodecTTS(SpeechLMSpec(model.url), server.url, **options) as tts,
    ):
        yield tts, model, server


def heard(events):
    """The samples of events; LiveKit may end a segment with a marker of silence."""
    samples = np.concatenate([np.frombuffer(event.frame.data, np.int16) for event in events])
    return samples[: np.flatnonzero(samples)[-1] + 1]


async def test_a_text_is_spoken_sample_for_sample():
    async with speaking(FAST) as (tts, model, _server):
        async with tts.synthesize("Good morning.") as stream:
            events = [event async for event in stream]
        assert np.array_equal(heard(events), np.repeat(TOKENS, 480))
        assert {event.frame.sample_rate for event in events} == {24_000}
        assert events[-1].is_final
    assert model.requests[0]["prompt"] == "Good morning."


async def test_sentences_are_spoken_as_they_arrive_in_one_session():
    async with speaking(FAST) as (tts, model, server):
        tts.prewarm()
        for _ in range(2):
            async with tts.stream() as stream:
                stream.push_text("Good morning, my dear friends. How are")
                stream.push_text(" you all doing on this fine day?")
                stream.end_input()
                events = [event async for event in stream]
            assert np.array_equal(heard(events), np.tile(np.repeat(TOKENS, 480), 2))
        assert server.all_sessions == 1
    assert [request["prompt"] for request in model.requests[:2]] == [
        "Good morning, my dear friends.",
        "How are you all doing on this fine day?",
    ]


async def test_an_interruption_closes_the_model_within_100_ms_and_the_next_is_clean():
    loop = asyncio.get_running_loop()
    story = np.arange(1, 3000, dtype=np.uint16)
    async with speaking(SLOW, story) as (tts, model, server):
        stream = tts.stream()
        stream.push_text("A long story.")
        stream.end_input()
        await anext(stream)
        begun_s = loop.time()
        await stream.aclose()
        await asyncio.wait_for(model.cut_off.wait(), 5)
        assert model.cut_off_s - begun_s < 0.1
        async with tts.synthesize("Another.") as again:
            first = await anext(again)
            samples = np.frombuffer(first.frame.data, np.int16)
            assert np.array_equal(samples, np.repeat(story, 480)[: samples.size])
        assert server.all_sessions == 1


async def test_sessions_that_were_lost_meanwhile_are_not_used():
    async with speaking(FAST) as (tts, _model, server):
        first, second = await tts.acquire(), await tts.acquire()
        tts.release(first)
        tts.release(second)
        server.drop()
        async with asyncio.timeout(5):
            while first.is_usable or second.is_usable:  # noqa: ASYNC110 (a session has no event for its end)
                await asyncio.sleep(0)
        async with tts.synthesize("Good morning.", conn_options=ONCE) as stream:
            assert np.array_equal(heard([event async for event in stream]), np.repeat(TOKENS, 480))
        assert server.all_sessions == 3


async def test_failures_become_livekit_errors():
    async with NeuCodecTTS(SpeechLMSpec("http://127.0.0.1:1/v1"), "ws://127.0.0.1:1") as tts:
        with pytest.raises(APIConnectionError):
            async with tts.synthesize("Hello.", conn_options=ONCE) as stream:
                await anext(stream)
    async with fake_server() as server, NeuCodecTTS(SpeechLMSpec("http://127.0.0.1:1/v1"), server.url) as tts:
        with pytest.raises(APIConnectionError):
            async with tts.synthesize("Hello.", conn_options=ONCE) as stream:
                await anext(stream)


async def test_the_example_speaks_its_text(tmp_path):
    async with fake_server() as server, stand_in(TOKENS, FAST) as model:
        await speak(model.url, server.url, "Good morning.", str(tmp_path / "out.wav"))
    written = soundfile.read(tmp_path / "out.wav", dtype="int16")[0]
    assert np.array_equal(written[: TOKENS.size * 480], np.repeat(TOKENS, 480))
