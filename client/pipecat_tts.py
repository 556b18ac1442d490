"""Text to speech for Pipecat: a speech language model's server and a decoding session as a TTSService.

    spec = SpeechLMSpec("http://127.0.0.1:8000/v1", template=template)
    Pipeline([transport.input(), stt, user, llm, NeuCodecTTSService(spec, url), transport.output()])

Needs the extra `pipecat`. Pipecat's own aggregation makes the sentences. An interruption closes the model's stream and
clears the session; Pipecat drops its audio of the old turn.
"""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Any

from pipecat.frames.frames import ErrorFrame, Frame, TTSAudioRawFrame
from pipecat.processors.frame_processor import FrameProcessorSetup
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import TTSService

from neucodec_streaming.audio import pcm_to_bytes
from neucodec_streaming.client.connection import connect
from neucodec_streaming.client.dial import DEFAULT_URL
from neucodec_streaming.client.speech_lm import ReferenceVoice, SpeechLM, TextToSpeech
from neucodec_streaming.errors import SpeechLMError, StreamingError, TokenError
from neucodec_streaming.protocol.speech_lm import SpeechLMSpec


class NeuCodecTTSService(TTSService):
    """Speaks text at the pipeline's audio_out_sample_rate, in one session from setup to cleanup.

    `url`, `profile` and `api_key` as in `client.connect`; `spec`, `model`, `speech_lm_key` and `reference` as in
    `client.speech_lm`. A failing model is an ErrorFrame for that sentence, a failing session a fatal one.
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
        **options: Any,
    ) -> None:
        settings = TTSSettings(model=model, voice=None, language=None)
        super().__init__(push_start_frame=True, push_stop_frames=True, settings=settings, **options)
        self._spec, self._model, self._speech_lm_key, self._reference = spec, model, speech_lm_key, reference
        self._session = {"url": url, "profile": profile, "api_key": api_key}
        self._stack = AsyncExitStack()
        self._speech: TextToSpeech | None = None

    def can_generate_metrics(self) -> bool:
        """Time to the first byte, and usage."""
        return True

    async def setup(self, setup: FrameProcessorSetup) -> None:  # type: ignore[override]  # as Pipecat's own do
        await super().setup(setup)
        try:
            model = await self._stack.enter_async_context(
                SpeechLM(self._spec, model=self._model, api_key=self._speech_lm_key)
            )
            session: dict[str, Any] = {**self._session, "kind": "decode", "output_rate": self.sample_rate}
            connection = await self._stack.enter_async_context(connect(**session))
            speech = TextToSpeech(model, connection, self._reference)
            await speech.prime()
        except StreamingError as error:
            await self.push_error(str(error), exception=error, force_treat_as_permanent=True)
            return
        self._speech = speech

    async def cleanup(self) -> None:
        await super().cleanup()
        self._speech = None
        await self._stack.aclose()

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        if self._speech is None:
            return
        await self.start_tts_usage_metrics(text)
        try:
            async with aclosing(self._speech.say(text)) as audio:
                async for samples in audio:
                    await self.stop_ttfb_metrics()
                    yield TTSAudioRawFrame(pcm_to_bytes(samples), self.sample_rate, 1, context_id=context_id)
        except (SpeechLMError, TokenError) as error:
            yield ErrorFrame(str(error), exception=error)
        except StreamingError as error:
            await self.push_error(str(error), exception=error, force_treat_as_permanent=True)
