"""The agent of demos.agent as a Pipecat pipeline: Pipecat's voice activity detector and turns, and our two services.

    python -m demos.agent_pipecat --model nano  # starts its own server; --server URL uses a running one

Microphone and speaker come from `client`, since Pipecat's own need PortAudio's headers and a compiler. A real agent has
a speech language model in place of RecordedAnswer. Use headphones, or it interrupts itself.
"""

import argparse
import asyncio
import random
import sys
from pathlib import Path

import numpy as np

from demos.command_line import needs
from demos.language_model import RECORDING, Pace, recorded_tokens, spoken
from demos.server_process import demo_server
from neucodec_streaming.audio import pcm_from_bytes, pcm_to_bytes
from neucodec_streaming.client.devices import Microphone, Speaker
from neucodec_streaming.config import INPUT_RATE, OUTPUT_RATE
from neucodec_streaming.errors import StreamingError

with needs("server,demo,pipecat"):
    from loguru import logger
    from pipecat.audio.vad.silero import SileroVADAnalyzer
    from pipecat.frames.frames import (
        EndFrame,
        Frame,
        InputAudioRawFrame,
        InterruptionFrame,
        LLMFullResponseEndFrame,
        LLMFullResponseStartFrame,
        StartFrame,
        TTSAudioRawFrame,
        TTSStoppedFrame,
        UserStoppedSpeakingFrame,
    )
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.worker import PipelineParams, PipelineWorker
    from pipecat.processors.audio.vad_processor import VADProcessor
    from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
    from pipecat.turns.user_start import VADUserTurnStartStrategy
    from pipecat.turns.user_stop import SpeechTimeoutUserTurnStopStrategy
    from pipecat.turns.user_turn_processor import UserTurnProcessor
    from pipecat.turns.user_turn_strategies import UserTurnStrategies
    from pipecat.workers.runner import WorkerRunner

    from neucodec_streaming.client.pipecat import InputTokensFrame, NeuCodecDecoder, NeuCodecEncoder, OutputTokensFrame

PARAMS = PipelineParams(audio_in_sample_rate=INPUT_RATE, audio_out_sample_rate=OUTPUT_RATE)
TURN_SILENCE_S = 0.3
"""Silence that ends the user's turn, in addition to the detector's own 0.2 s."""


class MicrophoneInput(FrameProcessor):
    def __init__(self, microphone: Microphone) -> None:
        super().__init__()
        self._microphone = microphone
        self._listening: asyncio.Task | None = None

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame):
            self._listening = self.create_task(self._listen())

    async def cleanup(self) -> None:
        if self._listening is not None:
            await self.cancel_task(self._listening)
        await super().cleanup()

    async def _listen(self) -> None:
        async for packet in self._microphone:
            await self.push_frame(InputAudioRawFrame(pcm_to_bytes(packet), self._microphone.rate, num_channels=1))


class SpeakerOutput(FrameProcessor):
    """Plays the agent's audio; an interruption silences it."""

    def __init__(self, speaker: Speaker) -> None:
        super().__init__()
        self._speaker = speaker

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            self._speaker.push(pcm_from_bytes(frame.audio))
        elif isinstance(frame, TTSStoppedFrame):
            self._speaker.finish()
        elif isinstance(frame, InterruptionFrame):
            self._speaker.clear()
        elif isinstance(frame, EndFrame):
            await self._speaker.drained()
        await self.push_frame(frame, direction)


class RecordedAnswer(FrameProcessor):
    """Answers every turn of the user with the same tokens, uint16 (n,), as a speech language model would."""

    def __init__(self, tokens: np.ndarray, pace: Pace) -> None:
        super().__init__()
        self._tokens = tokens
        self._pace = pace
        self._rng = random.Random(0)
        self._answering: asyncio.Task | None = None
        self._heard_tokens = 0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputTokensFrame):
            self._heard_tokens += frame.tokens.size
            return
        if isinstance(frame, InterruptionFrame):
            await self._stop()
        await self.push_frame(frame, direction)
        if isinstance(frame, UserStoppedSpeakingFrame):
            print(f"{self._heard_tokens} tokens heard so far; answering", flush=True)
            await self._stop()
            self._answering = self.create_task(self._answer())

    async def cleanup(self) -> None:
        await self._stop()
        await super().cleanup()

    async def _stop(self) -> None:
        if self._answering is not None:
            await self.cancel_task(self._answering)
            self._answering = None

    async def _answer(self) -> None:
        await self.push_frame(LLMFullResponseStartFrame())
        async for token in spoken(self._tokens, self._pace, self._rng):
            await self.push_frame(OutputTokensFrame(token))
        await self.push_frame(LLMFullResponseEndFrame())


def conversation(url: str, answer: np.ndarray, pace: Pace) -> list[FrameProcessor]:
    strategies = UserTurnStrategies(
        start=[VADUserTurnStartStrategy()],
        stop=[SpeechTimeoutUserTurnStopStrategy(user_speech_timeout=TURN_SILENCE_S, wait_for_transcript=False)],
    )
    return [
        VADProcessor(vad_analyzer=SileroVADAnalyzer()),
        UserTurnProcessor(user_turn_strategies=strategies),
        NeuCodecEncoder(url),
        RecordedAnswer(answer, pace),
        NeuCodecDecoder(url),
    ]


async def converse(options: argparse.Namespace) -> None:
    async with demo_server(options.server, options.model) as url:
        answer = await recorded_tokens(url, options.answer)
        with (
            Microphone(INPUT_RATE, options.microphone) as microphone,
            Speaker(OUTPUT_RATE, options.speaker) as speaker,
        ):
            pipeline = Pipeline(
                [MicrophoneInput(microphone), *conversation(url, answer, Pace()), SpeakerOutput(speaker)]
            )
            worker = PipelineWorker(pipeline, params=PARAMS, cancel_on_idle_timeout=False, enable_rtvi=False)
            runner = WorkerRunner()
            await runner.add_workers(worker)
            print(f"listening to {microphone.name}; Ctrl-C ends", flush=True)
            await runner.run()


def main() -> None:
    parser = argparse.ArgumentParser(prog="agent_pipecat", description="Listens, answers, and can be interrupted.")
    parser.add_argument("--server", metavar="URL", help="a running server (default: start one)")
    parser.add_argument("--model", default="nano", help="model of the server to start (%(default)s)")
    parser.add_argument("--answer", type=Path, default=RECORDING, help="its answer: WAV or FLAC (%(default)s)")
    parser.add_argument("--microphone", help="device number or part of its name, see `neucodec devices`")
    parser.add_argument("--speaker", help="device number or part of its name")
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    try:
        asyncio.run(converse(parser.parse_args()))
    except StreamingError as error:
        raise SystemExit(f"agent_pipecat: {error}") from None
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
