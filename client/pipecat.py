"""Services for Pipecat: microphone frames to tokens, token frames to audio; an interruption is sent as `clear`.

    Pipeline([transport.input(), vad, NeuCodecEncoder(url), speech_model, NeuCodecDecoder(url), transport.output()])

Needs the extra `pipecat`. Each service holds one session from the pipeline's setup to its end. If the session ends
sooner, an ErrorFrame reports the reason and the service is unusable. Audio in flight is dropped after an interruption,
so nothing of the old utterance follows the InterruptionFrame. Other frames keep their order relative to the audio, as
in Pipecat's own TTS services: a mark tells when the audio before them has arrived.
"""

import asyncio
import uuid
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

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
from neucodec_streaming.client.dial import Deadlines
from neucodec_streaming.client.events import Audio, Cleared, Done, Event, Flushed, Marked, Tokens
from neucodec_streaming.errors import StreamingError
from neucodec_streaming.resampler import Resampler

DEADLINES = Deadlines(send_s=10.0)
"""Limit of waiting for the server in a frame's way; Pipecat gives up a blocked pipeline after 20 s."""
END_S = 3.0
"""At the pipeline's end, an unresponsive server is abandoned after this time: transports wait for the EndFrame."""


@dataclass
class InputTokensFrame(SystemFrame):
    """Tokens of the heard audio: uint16 (n,); `position` of the first since the session began.

    A system frame, like InputAudioRawFrame: an interruption must not drop the speech that caused it.
    """

    tokens: np.ndarray
    position: int


@dataclass
class OutputTokensFrame(DataFrame):
    """Tokens to be spoken: uint16 (n,). LLMFullResponseEndFrame ends the utterance."""

    tokens: np.ndarray


class _Service(AIService):
    """One session, and the task that receives its events."""

    def __init__(self, kind: str, url: str, profile: str | None, api_key: str | None) -> None:
        super().__init__(settings=ServiceSettings(model=None))
        self._session: dict[str, Any] = {"url": url, "kind": kind, "profile": profile, "api_key": api_key}
        self._session["live"] = kind == "encode"
        self._connection: Connection | None = None
        self._listener: asyncio.Task | None = None
        self._events = 0

    def can_generate_metrics(self) -> bool:
        """True: reports the time to the first byte of an utterance."""
        return True

    async def setup(self, setup: FrameProcessorSetup) -> None:  # type: ignore[override]  # as Pipecat's own do
        """Opens the session at the pipeline's rates."""
        await super().setup(setup)
        opened = asyncio.Event()
        self._listener = self.create_task(self._converse(setup, opened), "listener")
        await opened.wait()

    async def stop(self, frame: EndFrame) -> None:
        """Ends the session and receives its remaining output, so that it precedes the EndFrame."""
        await super().stop(frame)
        with suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                await self._tell(lambda connection: connection.end())
        if self._listener is None:
            return
        heard = -1
        while heard != self._events and not self._listener.done():
            heard = self._events
            await asyncio.wait({self._listener}, timeout=END_S)
        if not self._listener.done():
            await self.push_error(f"the server did not end its session within {END_S:g} s: the last output is lost")
            await self.cancel_task(self._listener)

    async def cleanup(self) -> None:
        if self._listener is not None:
            await self.cancel_task(self._listener)
        await super().cleanup()

    async def _converse(self, setup: FrameProcessorSetup, opened: asyncio.Event) -> None:
        try:
            async with connect(
                **self._session,
                input_rate=setup.audio_in_sample_rate,
                output_rate=setup.audio_out_sample_rate,
                deadlines=DEADLINES,
            ) as connection:
                self._settings.model = connection.ready.model
                self._sync_model_name_to_metrics()
                self._connection = connection
                opened.set()
                async for event in connection:
                    self._events += 1
                    await self._deliver(event, connection)
        except StreamingError as error:
            await self.push_error(str(error), exception=error, force_treat_as_permanent=True)
        finally:
            self._connection = None
            opened.set()
            await self._release()

    async def _tell(self, say: Callable[[Connection], Coroutine[Any, Any, None]]) -> None:
        """Calls the session, if it is open; the receiving task reports its errors."""
        if self._connection is not None:
            with suppress(StreamingError):
                await say(self._connection)

    async def _release(self) -> None:
        """The session is over."""

    async def _deliver(self, event: Event, connection: Connection) -> None:
        raise NotImplementedError


class NeuCodecEncoder(_Service):
    """InputAudioRawFrames in and out, with InputTokensFrames added: a token for each 20 ms.

    `url`, `profile` and `api_key` as in `client.connect`. The session runs at the pipeline's audio_in_sample_rate;
    frames of other rates are resampled. Speech during a lost connection is stale: beyond half a second it gets no
    tokens.
    """

    def __init__(self, url: str = DEFAULT_URL, *, profile: str | None = None, api_key: str | None = None) -> None:
        super().__init__("encode", url, profile, api_key)
        self._resampler: Resampler | None = None
        self._frames_rate = 0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Sends audio to the server; passes every frame on."""
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame) and self._connection is not None:
            samples = downmix(pcm_from_bytes(frame.audio).reshape(-1, frame.num_channels))
            if frame.sample_rate != self._frames_rate:
                self._frames_rate, to = frame.sample_rate, self._connection.ready.input.rate
                self._resampler = Resampler(frame.sample_rate, to) if frame.sample_rate != to else None
            heard = samples if self._resampler is None else self._resampler.feed(samples)
            await self._tell(lambda connection: connection.send(heard))

    async def _deliver(self, event: Event, connection: Connection) -> None:
        if isinstance(event, Tokens):
            await self.push_frame(InputTokensFrame(event.tokens, event.position))


class NeuCodecDecoder(_Service):
    """OutputTokensFrames in, TTSAudioRawFrames out, between a TTSStartedFrame and a TTSStoppedFrame for each utterance.

    An InterruptionFrame ends the utterance at once; LLMFullResponseEndFrame and the pipeline's end, once all of its
    audio is out. Frames between tokens, and LLMFullResponseEndFrame itself, follow the audio of the tokens before them.
    Metrics are the times from an utterance's first tokens to its first audio, and to its first audible audio. `url`,
    `profile` and `api_key` as in `client.connect`; the rate is the pipeline's audio_out_sample_rate.
    """

    def __init__(self, url: str = DEFAULT_URL, *, profile: str | None = None, api_key: str | None = None) -> None:
        super().__init__("decode", url, profile, api_key)
        self._context: str | None = None  # between TTSStartedFrame and TTSStoppedFrame
        self._is_fed = False  # tokens were sent since the latest flush
        self._behind: deque[Frame] = deque()  # wait for the audio before them: a mark or a flush for each
        self._clears = 0  # clears in flight: audio until their answer is of an old utterance
        self._delivering = asyncio.Lock()  # so that no frame is passed on during an interruption

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Takes token frames and passes all others on; an InterruptionFrame only when no old audio can follow it."""
        await super().process_frame(frame, direction)
        if isinstance(frame, OutputTokensFrame):
            if not self._is_fed:
                self._is_fed = True
                await self.start_ttfb_metrics()
            await self._tell(lambda connection: connection.send(frame.tokens))
        elif isinstance(frame, InterruptionFrame):
            async with self._delivering:
                self._context, self._is_fed = None, False
                self._clears += 1
                kept = [held for held in self._behind if not held.interruptible]
                self._behind.clear()
            for held in kept:
                await self.push_frame(held)
            await self.push_frame(frame, direction)
            await self._tell(lambda connection: connection.clear())
        elif self._has_place(frame, direction):
            self._behind.append(frame)
            if isinstance(frame, LLMFullResponseEndFrame):
                self._is_fed = False
                await self._tell(lambda connection: connection.flush())
            else:
                await self._tell(lambda connection: connection.mark(frame.id))
        else:
            await self.push_frame(frame, direction)

    def _has_place(self, frame: Frame, direction: FrameDirection) -> bool:
        """Whether a frame has to wait for the audio of earlier tokens."""
        is_queued = direction is FrameDirection.DOWNSTREAM and not isinstance(frame, SystemFrame)
        return is_queued and self._connection is not None and (self._is_fed or bool(self._behind))

    async def _deliver(self, event: Event, connection: Connection) -> None:
        async with self._delivering:
            if isinstance(event, Cleared):
                self._clears -= 1
            elif self._clears:
                return
            elif isinstance(event, Audio):
                if self._context is None:
                    self._context = uuid.uuid4().hex
                    await self.stop_ttfb_metrics()
                    await self.push_frame(TTSStartedFrame(context_id=self._context))
                audio, rate = pcm_to_bytes(event.samples), connection.ready.output.rate
                spoken = TTSAudioRawFrame(audio, rate, num_channels=1, context_id=self._context)
                await self.process_ttfa_metrics(spoken)
                await self.push_frame(spoken)
            elif isinstance(event, Flushed | Done):
                await self._stop_speaking()
            if isinstance(event, Flushed | Marked) and self._behind:
                await self.push_frame(self._behind.popleft())

    async def _stop_speaking(self) -> None:
        if self._context is not None:
            stopped = TTSStoppedFrame(context_id=self._context)
            self._context = None
            await self.push_frame(stopped)

    async def _release(self) -> None:
        await self._stop_speaking()
        while self._behind:
            await self.push_frame(self._behind.popleft())
