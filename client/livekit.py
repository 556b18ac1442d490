"""Text to speech for LiveKit Agents: a speech language model's server and decoding sessions as a tts.TTS.

    spec = SpeechLMSpec("http://127.0.0.1:8000/v1", template=template)
    AgentSession(stt=..., llm=..., tts=NeuCodecTTS(spec, url))

Needs the extra `livekit`. Text is cut into sentences as it arrives, and each is spoken as soon as it is complete.
LiveKit interrupts by closing the stream, which closes the model's HTTP stream and clears the session; the session is
kept for the next stream.
"""

import asyncio
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Any

from livekit.agents import APIConnectionError, APIConnectOptions, tokenize, tts, utils
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS

from neucodec_streaming.audio import pcm_to_bytes
from neucodec_streaming.client.connection import connect
from neucodec_streaming.client.dial import DEFAULT_URL
from neucodec_streaming.client.speech_lm import ReferenceVoice, SpeechLM, TextToSpeech
from neucodec_streaming.config import FRAME_MS, OUTPUT_RATE
from neucodec_streaming.errors import ConfigError, StreamingError
from neucodec_streaming.protocol.speech_lm import SpeechLMSpec


class NeuCodecTTS(tts.TTS):
    """A streaming tts.TTS. `url`, `profile` and `api_key` as in `client.connect`; `spec`, `model`, `speech_lm_key` and
    `reference` as in `client.speech_lm`.

    Sessions are opened when needed, or earlier by `prewarm`, and kept until `aclose`.
    """

    def __init__(
        self,
        spec: SpeechLMSpec,
        url: str = DEFAULT_URL,
        *,
        model: str | None = None,
        speech_lm_key: str | None = None,
        reference: ReferenceVoice | None = None,
        profile: str | None = None,
        api_key: str | None = None,
        sample_rate: int = OUTPUT_RATE,
    ) -> None:
        capabilities = tts.TTSCapabilities(streaming=True)
        super().__init__(capabilities=capabilities, sample_rate=sample_rate, num_channels=1)
        self._speech_lm = SpeechLM(spec, model=model, api_key=speech_lm_key)
        self._model, self._reference = model, reference
        self._session: dict[str, Any] = {"url": url, "profile": profile, "api_key": api_key}
        self._session |= {"kind": "decode", "output_rate": sample_rate}
        self._stack = AsyncExitStack()
        self._stack.push_async_callback(self._speech_lm.aclose)
        self._idle: list[TextToSpeech] = []
        self._warming: asyncio.Task[None] | None = None

    @property
    def model(self) -> str:
        return self._model or "unknown"

    @property
    def provider(self) -> str:
        return "neucodec"

    def synthesize(
        self, text: str, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> tts.ChunkedStream:
        """The audio of one text."""
        return self._synthesize_with_stream(text, conn_options=conn_options)

    def stream(self, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS) -> "NeuCodecStream":
        """A stream of text in and audio out."""
        return NeuCodecStream(tts=self, conn_options=conn_options)

    def prewarm(self) -> None:
        """Opens a session before the first text."""
        if self._warming is None and not self._idle:
            self._warming = asyncio.create_task(self._warm(), name="first session")

    async def _warm(self) -> None:
        with suppress(StreamingError):  # the first text meets the error again
            self._idle.append(await self._open())

    async def acquire(self) -> TextToSpeech:
        """A session reserved until `release`. Raises as `connect` does."""
        if self._warming is not None:
            await asyncio.wait({self._warming})
        while self._idle:
            speech = self._idle.pop()
            if speech.is_usable:
                return speech
        return await self._open()

    async def _open(self) -> TextToSpeech:
        connection = await self._stack.enter_async_context(connect(**self._session))
        speech = TextToSpeech(self._speech_lm, connection, self._reference)
        await speech.prime()
        return speech

    def release(self, speech: TextToSpeech) -> None:
        """Returns the session for the next use."""
        if speech.is_usable:
            self._idle.append(speech)

    async def aclose(self) -> None:
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.gather(self._warming, return_exceptions=True)
        self._idle.clear()
        await self._stack.aclose()


class NeuCodecStream(tts.SynthesizeStream):
    """One stream of text, spoken sentence by sentence."""

    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        source = self._tts
        assert isinstance(source, NeuCodecTTS)
        sentences = tokenize.basic.SentenceTokenizer().stream()
        output_emitter.initialize(
            request_id=utils.shortuuid(),
            sample_rate=source.sample_rate,
            num_channels=1,
            mime_type="audio/pcm",
            frame_size_ms=FRAME_MS,
            stream=True,
        )
        output_emitter.start_segment(segment_id=utils.shortuuid())
        reading = asyncio.create_task(self._read(sentences), name="text")
        try:
            speech = await source.acquire()
            try:
                async for sentence in sentences:
                    if sentence.token.strip():
                        self._mark_started()
                        async with aclosing(speech.say(sentence.token)) as audio:
                            async for samples in audio:
                                output_emitter.push(pcm_to_bytes(samples))
            finally:
                source.release(speech)
            await reading
        except StreamingError as error:
            raise APIConnectionError(str(error), retryable=not isinstance(error, ConfigError)) from error
        finally:
            await utils.aio.cancel_and_wait(reading)
            await sentences.aclose()

    async def _read(self, sentences: tokenize.SentenceStream) -> None:
        async for piece in self._input_ch:
            if isinstance(piece, self._FlushSentinel):
                sentences.flush()
            else:
                sentences.push_text(piece)
        sentences.end_input()
