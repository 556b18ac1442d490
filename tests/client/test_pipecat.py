"""The Pipecat services in pipelines of Pipecat's own, against a real server whose codec is arithmetic."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import numpy as np
import pytest
from pipecat.frames.frames import (
    BotStoppedSpeakingFrame,
    DataFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    MetricsFrame,
    OutputAudioRawFrame,
    StartFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.metrics.metrics import TTFBMetricsData
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import TransportParams
from pipecat.workers.runner import WorkerRunner

from benchmarks.common.faulty_proxy import proxy
from neucodec_streaming.audio import pcm_from_bytes, pcm_to_bytes
from neucodec_streaming.client.pipecat import InputTokensFrame, NeuCodecDecoder, NeuCodecEncoder, OutputTokensFrame
from neucodec_streaming.config import INPUT_RATE, OUTPUT_HOP, OUTPUT_RATE
from tests.client.fake_server import Fault, fake_server
from tests.server.hosting import hosted
from tests.streaming.engine.fake import FakeRunner, audio_of, speech, tokens_of

DEADLINE_S = 10.0
OLD, NEW = 100, 200
"""Levels: every token and every sample identifies its utterance."""


@pytest.fixture(scope="module")
def server():
    with hosted(FakeRunner()) as host:
        yield host


class Ear(FrameProcessor):
    """The end of a pipeline. Pushing audio blocks while `takes_audio` is not set."""

    def __init__(self) -> None:
        super().__init__(enable_direct_mode=True)
        self.frames: list[Frame] = []
        self.takes_audio = asyncio.Event()
        self.takes_audio.set()
        self._came = asyncio.Condition()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            await self.takes_audio.wait()
        if direction is FrameDirection.DOWNSTREAM:
            async with self._came:
                self.frames.append(frame)
                self._came.notify_all()
        await self.push_frame(frame, direction)

    async def heard(self, kind: type[Frame], count: int = 1) -> None:
        async with asyncio.timeout(DEADLINE_S), self._came:
            await self._came.wait_for(lambda: len(self.of(kind)) >= count)

    def of(self, kind: type[Frame]) -> list[Frame]:
        return [frame for frame in self.frames if isinstance(frame, kind)]

    def kinds(self, *kinds: type[Frame]) -> list[type[Frame]]:
        """The order in which frames of these kinds arrived, without repeats."""
        order = [type(frame) for frame in self.frames if isinstance(frame, kinds)]
        return [kind for i, kind in enumerate(order) if i == 0 or kind is not order[i - 1]]

    @property
    def tokens(self) -> np.ndarray:
        return np.concatenate([frame.tokens for frame in self.of(InputTokensFrame)])

    @property
    def audio(self) -> np.ndarray:
        return np.concatenate([pcm_from_bytes(frame.audio) for frame in self.of(TTSAudioRawFrame)])


class Line:
    """A running pipeline: `push` feeds its start, `ear` is its end."""

    def __init__(self, *processors: FrameProcessor, input_rate: int = INPUT_RATE) -> None:
        self.ear = Ear()
        self.errors: list[ErrorFrame] = []
        params = PipelineParams(audio_in_sample_rate=input_rate, audio_out_sample_rate=OUTPUT_RATE, enable_metrics=True)
        self.worker = PipelineWorker(
            Pipeline([*processors, self.ear]), params=params, cancel_on_idle_timeout=False, enable_rtvi=False
        )
        self.worker.add_event_handler("on_pipeline_error", self._on_error)

    async def _on_error(self, worker: PipelineWorker, frame: ErrorFrame) -> None:
        self.errors.append(frame)

    async def push(self, *frames: Frame) -> None:
        for frame in frames:
            await self.worker.queue_frame(frame)


@asynccontextmanager
async def running(line: Line) -> AsyncIterator[Line]:
    """Leaving the context sends EndFrame and waits until it has gone through."""
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(line.worker)
    async with asyncio.timeout(2 * DEADLINE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(runner.run(), name="pipeline")
        yield line
        await line.push(EndFrame())


class CountedRunner(FakeRunner):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.done = threading.Event()
        self._count = count

    def step(self, *arguments):
        output = super().step(*arguments)
        if len(self.steps) == self._count:
            self.done.set()
        return output


def microphone(pcm: np.ndarray, rate: int = INPUT_RATE, channels: int = 1) -> list[InputAudioRawFrame]:
    """Frames of 20 ms, the same on all channels."""
    samples = np.repeat(pcm, channels).reshape(-1, rate // 50 * channels)
    return [InputAudioRawFrame(pcm_to_bytes(packet), rate, channels) for packet in samples]


def said(level: int, count: int) -> np.ndarray:
    return np.full(count, level * 256, np.uint16)


async def test_microphone_frames_become_tokens_and_are_passed_on(server):
    levels = list(range(1, 24))
    async with running(Line(NeuCodecEncoder(server.url))) as line:
        await line.push(*microphone(speech(*levels)))
    assert np.array_equal(line.ear.tokens, tokens_of(levels))
    heard = line.ear.of(InputTokensFrame)
    assert [frame.position for frame in heard] == [0, *np.cumsum([frame.tokens.size for frame in heard])[:-1]]
    assert len(line.ear.of(InputAudioRawFrame)) == len(levels)
    assert isinstance(line.ear.frames[-1], EndFrame) and not line.errors


async def test_a_stereo_microphone_at_another_rate_gives_the_same_number_of_tokens(server):
    tone = np.sin(np.arange(48_000) / 20).astype(np.float32) / 4
    async with running(Line(NeuCodecEncoder(server.url), input_rate=48_000)) as line:
        await line.push(*microphone(tone, 48_000, 2))
    assert line.ear.tokens.size == 50


@pytest.mark.parametrize("rate", [48_000, 8_000, 44_100])
async def test_frames_are_encoded_at_their_own_rate_and_not_the_pipelines(server, rate):
    tone = np.sin(np.arange(4 * rate) / 20).astype(np.float32) / 4
    async with running(Line(NeuCodecEncoder(server.url))) as line:
        await line.push(*microphone(tone, rate))
    assert line.ear.tokens.size in (198, 199, 200)  # what the resampler holds back is less than a frame


async def test_tokens_become_audio_between_started_and_stopped(server):
    tokens = np.arange(40, dtype=np.uint16) * 800
    async with running(Line(NeuCodecDecoder(server.url))) as line:
        for packet in np.split(tokens, 8):
            await line.push(OutputTokensFrame(packet))
        await line.push(LLMFullResponseEndFrame())
        await line.ear.heard(TTSStoppedFrame)
    assert line.ear.kinds(TTSStartedFrame, TTSAudioRawFrame, TTSStoppedFrame) == [
        TTSStartedFrame,
        TTSAudioRawFrame,
        TTSStoppedFrame,
    ]
    assert np.allclose(line.ear.audio, audio_of(tokens), atol=1e-4)
    assert {frame.sample_rate for frame in line.ear.of(TTSAudioRawFrame)} == {OUTPUT_RATE}


async def test_an_unfinished_utterance_is_played_before_the_pipeline_ends(server):
    tokens = said(NEW, 12)
    async with running(Line(NeuCodecDecoder(server.url))) as line:
        await line.push(OutputTokensFrame(tokens))
    assert np.allclose(line.ear.audio, audio_of(tokens), atol=1e-4)
    assert line.ear.kinds(TTSAudioRawFrame, TTSStoppedFrame, EndFrame) == [TTSAudioRawFrame, TTSStoppedFrame, EndFrame]


class NoteFrame(DataFrame):
    """A frame of somebody else's."""


async def test_frames_keep_their_order_relative_to_audio_as_in_pipecats_own_services(server):
    async with running(Line(NeuCodecDecoder(server.url))) as line:
        for _ in range(2):
            await line.push(LLMFullResponseStartFrame(), OutputTokensFrame(said(NEW, 20)))
            await line.push(NoteFrame(), OutputTokensFrame(said(NEW, 20)), LLMFullResponseEndFrame())
        await line.ear.heard(LLMFullResponseEndFrame, 2)
    answer = [LLMFullResponseStartFrame, TTSStartedFrame, TTSAudioRawFrame, NoteFrame, TTSAudioRawFrame]
    kinds = (*answer, TTSStoppedFrame, LLMFullResponseEndFrame)
    assert line.ear.kinds(*kinds) == [*answer, TTSStoppedFrame, LLMFullResponseEndFrame] * 2
    contexts = [frame.context_id for frame in line.ear.of(TTSStartedFrame)]
    assert len(set(contexts)) == 2
    assert {frame.context_id for frame in line.ear.of(TTSAudioRawFrame)} == set(contexts)
    assert [frame.context_id for frame in line.ear.of(TTSStoppedFrame)] == contexts


async def test_the_time_to_the_first_byte_is_reported_for_every_utterance(server):
    async with running(Line(decoder := NeuCodecDecoder(server.url))) as line:
        for count in range(2):
            await line.push(OutputTokensFrame(said(NEW, 20)), LLMFullResponseEndFrame())
            await line.ear.heard(TTSStoppedFrame, count + 1)
    told = [data for frame in line.ear.of(MetricsFrame) for data in frame.data if isinstance(data, TTFBMetricsData)]
    told = [data for data in told if data.processor == decoder.name and data.value > 0]
    assert len(told) == 2 and all(data.value < DEADLINE_S for data in told)


class Loudspeaker(BaseOutputTransport):
    """A transport whose device takes audio at once."""

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        return True


async def test_a_transport_reports_the_end_of_bot_speech_when_the_utterance_ends(server):
    line = Line(NeuCodecDecoder(server.url), Loudspeaker(TransportParams(audio_out_enabled=True)))
    async with running(line):
        await line.push(LLMFullResponseStartFrame(), OutputTokensFrame(said(NEW, 20)), LLMFullResponseEndFrame())
        await line.ear.heard(BotStoppedSpeakingFrame)
    assert len(line.ear.of(BotStoppedSpeakingFrame)) == 1


@pytest.mark.parametrize("service", [NeuCodecEncoder, NeuCodecDecoder])
async def test_after_a_server_crash_the_pipeline_ends_within_the_transports_timeout(service, monkeypatch):
    monkeypatch.setattr("neucodec_streaming.client.pipecat.END_S", 0.2)
    clock = asyncio.get_running_loop().time
    async with fake_server(resume=True) as crashed:
        async with running(Line(service(crashed.url))) as line:
            await line.push(*microphone(speech(1, 2, 3, 4, 5)), OutputTokensFrame(said(NEW, 5)))
            async with asyncio.timeout(DEADLINE_S):
                await crashed.heard.wait()
            crashed.fault = Fault.PROXY
            crashed.drop()
            begin = clock()
        assert clock() - begin < 2
    assert isinstance(line.ear.frames[-1], EndFrame)
    assert "did not end its session" in line.errors[-1].error


async def test_no_audio_of_an_interrupted_utterance_follows_the_interruption():
    arrived = asyncio.Event()

    async def on_frame(decoder: NeuCodecDecoder, frame: Frame) -> None:
        if isinstance(frame, InterruptionFrame):
            arrived.set()

    runner = CountedRunner(39)  # 200 tokens but for the last 5, which wait for lookahead
    with hosted(runner) as server:
        line = Line(decoder := NeuCodecDecoder(server.url))
        decoder.add_event_handler("on_before_process_frame", on_frame)
        async with running(line):
            line.ear.takes_audio.clear()
            await line.push(OutputTokensFrame(said(OLD, 200)))
            await line.ear.heard(TTSStartedFrame)  # the first audio is on its way, in the middle of a push
            assert await asyncio.to_thread(runner.done.wait, DEADLINE_S)  # and the rest is behind it
            await line.push(InterruptionFrame())
            async with asyncio.timeout(DEADLINE_S):
                await arrived.wait()
            for _ in range(100):
                await asyncio.sleep(0)  # as long as the interruption wants to go on, if it does not wait
            line.ear.takes_audio.set()
            await line.push(OutputTokensFrame(said(NEW, 20)), LLMFullResponseEndFrame())
            await line.ear.heard(TTSStoppedFrame)
    kinds = line.ear.kinds(TTSStartedFrame, TTSAudioRawFrame, TTSStoppedFrame, InterruptionFrame)
    spoken = [TTSStartedFrame, TTSAudioRawFrame]
    assert kinds == [*spoken, InterruptionFrame, *spoken, TTSStoppedFrame]
    del line.ear.frames[: line.ear.frames.index(line.ear.of(InterruptionFrame)[0])]
    assert np.allclose(line.ear.audio, audio_of(said(NEW, 20)), atol=1e-4)


async def test_an_utterance_can_be_interrupted_again_and_again(server):
    async with running(Line(NeuCodecDecoder(server.url))) as line:
        for count in range(5):
            await line.push(OutputTokensFrame(said(OLD, 50)))
            await line.ear.heard(TTSStartedFrame, count + 1)
            await line.push(InterruptionFrame(), InterruptionFrame())
        await line.push(OutputTokensFrame(said(NEW, 20)), LLMFullResponseEndFrame())
        await line.ear.heard(TTSStoppedFrame)
    assert len(line.ear.of(TTSStoppedFrame)) == 1
    assert np.allclose(line.ear.audio[-20 * OUTPUT_HOP :], audio_of(said(NEW, 20)), atol=1e-4)


async def test_the_tokens_of_an_interruption_are_not_lost(server):
    levels = list(range(1, 51))
    packets = microphone(speech(*levels))
    async with running(Line(NeuCodecEncoder(server.url))) as line:
        for start in range(0, len(packets), 10):
            await line.push(*packets[start : start + 10], InterruptionFrame())
    assert np.array_equal(line.ear.tokens, tokens_of(levels))


async def test_both_services_in_one_pipeline_have_separate_sessions(server):
    class Parrot(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, InputTokensFrame):
                await self.push_frame(OutputTokensFrame(frame.tokens))
            else:
                await self.push_frame(frame, direction)

    levels = list(range(1, 24))
    async with running(Line(NeuCodecEncoder(server.url), Parrot(), NeuCodecDecoder(server.url))) as line:
        await line.push(*microphone(speech(*levels)))
    assert np.allclose(line.ear.audio, audio_of(tokens_of(levels)), atol=1e-4)
    await server.emptied()


async def test_a_lost_connection_is_invisible_to_the_pipeline(server):
    tokens = np.arange(100, dtype=np.uint16) * 600
    address = urlsplit(server.url)
    async with proxy(address.hostname, address.port) as way:
        async with running(Line(NeuCodecDecoder(way.url))) as line:
            await line.push(OutputTokensFrame(tokens[:50]))
            await line.ear.heard(TTSAudioRawFrame)
            way.reset()
            await line.push(OutputTokensFrame(tokens[50:]), LLMFullResponseEndFrame())
            await line.ear.heard(TTSStoppedFrame)
        assert way.accepted == 2
    assert np.allclose(line.ear.audio, audio_of(tokens), atol=1e-4)
    assert not line.errors


@pytest.mark.parametrize("service", [NeuCodecEncoder, NeuCodecDecoder])
async def test_an_unreachable_server_is_an_error_and_the_pipeline_continues(service):
    made = service("ws://127.0.0.1:9")
    async with running(Line(made)) as line:
        await line.push(*microphone(speech(1)), OutputTokensFrame(said(NEW, 5)), InterruptionFrame())
        await line.ear.heard(InterruptionFrame)
    assert "server not reachable" in line.errors[0].error
    assert not made.is_usable


async def test_a_cancelled_pipeline_leaves_no_session(server):
    line = Line(NeuCodecDecoder(server.url))
    async with running(line):
        await line.push(OutputTokensFrame(said(OLD, 100)))
        await line.ear.heard(TTSStartedFrame)
        await line.worker.cancel()
    await server.emptied()
