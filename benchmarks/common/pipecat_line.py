"""A Pipecat pipeline around one text-to-speech service, for one text after the other."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from loguru import logger
from pipecat.frames.frames import EndFrame, Frame, InterruptionFrame, TTSAudioRawFrame, TTSSpeakFrame, TTSStoppedFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.tts_service import TTSService
from pipecat.workers.runner import WorkerRunner

from neucodec_streaming.config import OUTPUT_RATE


class _Ear(FrameProcessor):
    """The end of the pipeline: the samples of each audio frame, and None at the end of an utterance."""

    def __init__(self) -> None:
        super().__init__(enable_direct_mode=True)
        self.heard: asyncio.Queue[int | None] = asyncio.Queue()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            self.heard.put_nowait(len(frame.audio) // 2)
        elif isinstance(frame, TTSStoppedFrame):
            self.heard.put_nowait(None)
        await self.push_frame(frame, direction)


@asynccontextmanager
async def speaking_line(service: TTSService, text: str) -> AsyncIterator[Callable[[], AsyncIterator[int]]]:
    """Speaks the text and yields the samples of each frame; closing the iteration sends an InterruptionFrame."""
    logger.remove()
    ear = _Ear()
    params = PipelineParams(audio_out_sample_rate=OUTPUT_RATE)
    worker = PipelineWorker(Pipeline([service, ear]), params=params, cancel_on_idle_timeout=False, enable_rtvi=False)

    async def say() -> AsyncIterator[int]:
        ear.heard = asyncio.Queue()
        await worker.queue_frame(TTSSpeakFrame(text))
        is_over = False
        try:
            while (samples := await ear.heard.get()) is not None:
                yield samples
            is_over = True
        finally:
            if not is_over:
                await worker.queue_frame(InterruptionFrame())

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(runner.run(), name="pipeline")
        yield say
        await worker.queue_frame(EndFrame())
