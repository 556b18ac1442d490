"""Services for Pipecat: microphone frames to tokens, token frames to audio, and an interruption as a `clear`.

    Pipeline([transport.input(), vad, NeuCodecEncoder(url), speech_model, NeuCodecDecoder(url), transport.output()])

Needs the extra `pipecat`. Each service holds one session, open from the pipeline's setup until its end; what ends it
sooner is reported by an ErrorFrame, and the service is then no longer usable. Nothing of an interrupted utterance
follows the InterruptionFrame: what is on its way is dropped until the server says that it was the last of it.
"""

import asyncio
from dataclasses import dataclass

import numpy as np
from pipecat.frames.frames import (
    DataFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    SystemFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessorSetup
from pipecat.services.ai_service import AIService
from pipecat.services.settings import ServiceSettings

from neucodec_streaming.audio import downmix, pcm_from_bytes, pcm_to_bytes
from neucodec_streaming.client.connection import DEFAULT_URL, Connection, connect
from neucodec_streaming.client.events import Audio, Cleared, Done, Event, Flushed, Tokens
from neucodec_streaming.errors import StreamingError


@dataclass
class InputTokensFrame(SystemFrame):
    """Tokens of what was heard: uint16 (n,), `position` that of the first since the session began.

    A system frame, as InputAudioRawFrame is: the speech that interrupts must not be dropped by the interruption.
    """

    tokens: np.ndarray
    position: int


@dataclass
class OutputTokensFrame(DataFrame):
    """Tokens to be said: uint16 (n,). LLMFullResponseEndFrame ends the utterance."""

    tokens: np.ndarray


class _Service(AIService):
    """One session, and the task that hears its events."""

    def __init__(self, kind: str, url: str, profile: str | None, api_key: str | None) -> None:
        super().__init__(settings=ServiceSettings(model=None))
        self._kind = kind
        self._url = url
        self._profile = profile
        self._api_key = api_key
        self._connection: Connection | None = None
        self._listener: asyncio.Task | None = None

    async def setup(self, setup: FrameProcessorSetup) -> None:  # type: ignore[override]  # as Pipecat's own do
        """Opens the session, at the rates of the pipeline."""
        await super().setup(setup)
        opened = asyncio.Event()
        self._listener = self.create_task(self._converse(setup, opened), "listener")
        await opened.wait()

    async def stop(self, frame: EndFrame) -> None:
        """Ends the session and hears it out, so that its tail goes before the EndFrame."""
        await super().stop(frame)
        if self._connection is not None:
            await self._connection.end()
        if self._listener is not None:
            await self._listener

    async def cleanup(self) -> None:
        """Closes the session if it is still open."""
        if self._listener is not None:
            await self.cancel_task(self._listener)
        await super().cleanup()

    async def _converse(self, setup: FrameProcessorSetup, opened: asyncio.Event) -> None:
        try:
            async with connect(
                self._url,
                kind=self._kind,
                profile=self._profile,
                input_rate=setup.audio_in_sample_rate,
                output_rate=setup.audio_out_sample_rate,
                api_key=self._api_key,
            ) as connection:
                self._settings.model = connection.ready.model
                self._sync_model_name_to_metrics()
                self._connection = connection
                opened.set()
                async for event in connection:
                    await self._deliver(event, connection)
        except StreamingError as error:
            await self.push_error(str(error), exception=error, force_treat_as_permanent=True)
        finally:
            self._connection = None
            opened.set()

    async def _deliver(self, event: Event, connection: Connection) -> None:
        raise NotImplementedError


class NeuCodecEncoder(_Service):
    """InputAudioRawFrames in, and out again with InputTokensFrames beside them: a token for each 20 ms.

    `url`, `profile` and `api_key` are those of `client.connect`; the rate is the pipeline's audio_in_sample_rate.
    """

    def __init__(self, url: str = DEFAULT_URL, *, profile: str | None = None, api_key: str | None = None) -> None:
        super().__init__("encode", url, profile, api_key)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Sends audio to the server; passes every frame on."""
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame) and self._connection is not None:
            samples = pcm_from_bytes(frame.audio).reshape(-1, frame.num_channels)
            await self._connection.send(downmix(samples))

    async def _deliver(self, event: Event, connection: Connection) -> None:
        if isinstance(event, Tokens):
            await self.push_frame(InputTokensFrame(event.tokens, event.position))


class NeuCodecDecoder(_Service):
    """OutputTokensFrames in, TTSAudioRawFrames out, between a TTSStartedFrame and a TTSStoppedFrame for each utterance.

    An InterruptionFrame ends the utterance at once; LLMFullResponseEndFrame, or the pipeline's end, when all of it has
    come out. `url`, `profile` and `api_key` are those of `client.connect`; the rate is the pipeline's
    audio_out_sample_rate.
    """

    def __init__(self, url: str = DEFAULT_URL, *, profile: str | None = None, api_key: str | None = None) -> None:
        super().__init__("decode", url, profile, api_key)
        self._speaking = False  # between TTSStartedFrame and TTSStoppedFrame
        self._clears = 0  # that the server has not answered: audio until then is of an old utterance
        self._delivering = asyncio.Lock()  # so that no frame is on its way to the next processor during an interruption

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Takes token frames; passes all others on, an InterruptionFrame only when nothing old can follow it."""
        await super().process_frame(frame, direction)
        if isinstance(frame, OutputTokensFrame):
            if self._connection is not None:
                await self._connection.send(frame.tokens)
        elif isinstance(frame, InterruptionFrame):
            async with self._delivering:
                self._speaking = False
                self._clears += 1
            await self.push_frame(frame, direction)
            if self._connection is not None:
                await self._connection.clear()
        else:
            await self.push_frame(frame, direction)
            if isinstance(frame, LLMFullResponseEndFrame) and self._connection is not None:
                await self._connection.flush()

    async def _deliver(self, event: Event, connection: Connection) -> None:
        async with self._delivering:
            if isinstance(event, Cleared):
                self._clears -= 1
            elif self._clears:
                return
            elif isinstance(event, Audio):
                if not self._speaking:
                    self._speaking = True
                    await self.push_frame(TTSStartedFrame())
                audio = pcm_to_bytes(event.samples)
                await self.push_frame(TTSAudioRawFrame(audio, connection.ready.output.rate, num_channels=1))
            elif isinstance(event, Flushed | Done) and self._speaking:
                self._speaking = False
                await self.push_frame(TTSStoppedFrame())
