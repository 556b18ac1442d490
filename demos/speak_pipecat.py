"""The shortest Pipecat pipeline that speaks: it sends a text to a language-model server and writes the speech to a WAV
file.

    python -m demos.speak_pipecat http://127.0.0.1:8000/v1 ws://127.0.0.1:8765 "Good morning." out.wav
"""

import asyncio

from demos.command_line import needs, speak_arguments
from neucodec_streaming.audio import pcm_from_bytes
from neucodec_streaming.client.files import AudioWriter
from neucodec_streaming.config import OUTPUT_RATE
from neucodec_streaming.protocol.speech_lm import SpeechLMSpec

with needs("pipecat"):
    from pipecat.frames.frames import EndFrame, Frame, TTSAudioRawFrame, TTSSpeakFrame
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.worker import PipelineParams, PipelineWorker
    from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
    from pipecat.workers.runner import WorkerRunner

    from neucodec_streaming.client.pipecat_tts import NeuCodecTTSService


class WavOutput(FrameProcessor):
    """Writes the speech to a file; an agent has a transport's output here."""

    def __init__(self, file: AudioWriter) -> None:
        super().__init__()
        self._file = file

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            self._file.write(pcm_from_bytes(frame.audio))
        await self.push_frame(frame, direction)


async def speak(speech_lm_url: str, url: str, text: str, path: str) -> None:
    with AudioWriter(path, OUTPUT_RATE) as file:
        pipeline = Pipeline([NeuCodecTTSService(SpeechLMSpec(speech_lm_url), url), WavOutput(file)])
        worker = PipelineWorker(pipeline, params=PipelineParams(audio_out_sample_rate=OUTPUT_RATE), enable_rtvi=False)
        await worker.queue_frames([TTSSpeakFrame(text), EndFrame()])
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        await runner.run()


def main() -> None:
    given = speak_arguments("speak_pipecat", "Speaks a text into a WAV file by a Pipecat pipeline.")
    asyncio.run(speak(given.speech_lm_url, given.url, given.text, given.path))


if __name__ == "__main__":
    main()
