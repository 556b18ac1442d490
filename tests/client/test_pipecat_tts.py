"""Text to speech in a pipeline of Pipecat's own, between the stand-in language model and a real server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from pipecat.frames.frames import (
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)

from demos.language_model import Pace
from demos.speech_lm_server import StandIn, stand_in
from neucodec_streaming.client.pipecat_tts import NeuCodecTTSService
from neucodec_streaming.config import OUTPUT_HOP, OUTPUT_RATE
from neucodec_streaming.protocol.speech_lm import SpeechLMSpec
from tests.client.test_pipecat import DEADLINE_S, Line, running
from tests.server.hosting import hosted
from tests.streaming.engine.fake import FakeRunner, audio_of

FAST = Pace(prompt_s=0, tokens_per_second=20_000, pause_every=10**9)
SLOW = Pace(prompt_s=0, tokens_per_second=300, pause_every=10**9)
STORY = np.arange(1000, 7000, 2, dtype=np.uint16)
TOKENS = np.arange(200, 320, 2, dtype=np.uint16)


@pytest.fixture(scope="module")
def server():
    with hosted(FakeRunner()) as host:
        yield host


@asynccontextmanager
async def speaking(url: str, pace: Pace, tokens: np.ndarray = TOKENS) -> AsyncIterator[tuple[Line, StandIn]]:
    async with (
        stand_in(tokens, pace) as model,
        running(Line(NeuCodecTTSService(SpeechLMSpec(model.url), url))) as line,
    ):
        yield line, model


async def test_each_sentence_is_spoken_sample_for_sample(server):
    async with speaking(server.url, FAST) as (line, model):
        await line.push(LLMFullResponseStartFrame(), LLMTextFrame("Good morning. "), LLMTextFrame("How are"))
        await line.push(LLMTextFrame(" you?"), LLMFullResponseEndFrame())
        await line.ear.heard(TTSStoppedFrame)
    assert [request["prompt"] for request in model.requests] == ["Good morning.", "How are you?"]
    assert np.array_equal(line.ear.audio, np.tile(audio_of(TOKENS), 2))
    assert line.ear.kinds(TTSStartedFrame, TTSAudioRawFrame, TTSStoppedFrame) == [
        TTSStartedFrame,
        TTSAudioRawFrame,
        TTSStoppedFrame,
    ]
    assert {frame.sample_rate for frame in line.ear.of(TTSAudioRawFrame)} == {OUTPUT_RATE}
    assert line.errors == []


async def test_an_interruption_closes_the_model_and_the_next_turn_is_clean(server):
    loop = asyncio.get_running_loop()
    async with speaking(server.url, SLOW, STORY) as (line, model):
        await line.push(TTSSpeakFrame("A long story."))
        await line.ear.heard(TTSAudioRawFrame)
        begun_s = loop.time()
        await line.push(InterruptionFrame())
        await asyncio.wait_for(model.cut_off.wait(), DEADLINE_S)
        assert model.cut_off_s - begun_s < 0.1
        await line.ear.heard(InterruptionFrame)
        line.ear.frames.clear()
        await line.push(TTSSpeakFrame("Another."))
        await line.ear.heard(TTSAudioRawFrame, 2)
        audio = line.ear.audio
        assert np.array_equal(audio, audio_of(STORY[: audio.size // OUTPUT_HOP]))
        await line.push(InterruptionFrame())
    assert line.errors == []


async def test_the_service_survives_an_error_of_the_model(server):
    service = NeuCodecTTSService(SpeechLMSpec("http://127.0.0.1:1/v1"), server.url)
    async with running(line := Line(service)):
        await line.push(TTSSpeakFrame("Hello."))
    assert "is it running" in line.errors[0].error
    assert service.is_usable


async def test_an_unreachable_server_is_a_permanent_error():
    service = NeuCodecTTSService(SpeechLMSpec("http://127.0.0.1:1/v1"), "ws://127.0.0.1:1")
    async with running(line := Line(service)):
        await line.push(TTSSpeakFrame("Hello."))
    assert "start it with" in line.errors[0].error
    assert not service.is_usable
