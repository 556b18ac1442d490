"""From text to live audio: a language-model server generates tokens, a decoding session turns them into audio.

    spec = SpeechLMSpec("http://127.0.0.1:8000/v1", template=template)
    async with SpeechLM(spec) as model, connect(url, kind="decode") as connection:
        async for samples in TextToSpeech(model, connection).say("Hello."):
            ...                                              # float32 (m,) at connection.ready.output.rate

Needs the extra `speak` (httpx). The model is read only as fast as the audio is taken: the session's back-pressure
reaches the model's HTTP stream. Closing or cancelling an iteration is an interruption: it closes that stream first,
then clears the session.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import httpx
import numpy as np

from neucodec_streaming.client.connection import Connection
from neucodec_streaming.client.errors import FileError
from neucodec_streaming.client.events import Audio, Cleared, Event, Flushed
from neucodec_streaming.client.files import read_tokens
from neucodec_streaming.config import MIN_VOICE_TOKENS
from neucodec_streaming.errors import StreamingError, reason_of
from neucodec_streaming.protocol.messages import MAX_VOICE_TOKENS
from neucodec_streaming.protocol.speech_lm import TAGS, AnswerParser, SpeechLMSpec, SpeechPiece, refusal, unreachable
from neucodec_streaming.proxies import proxy_for, shown

KEY_VARIABLE = "NEUCODEC_SPEECH_LM_KEY"
CONNECT_S = 10.0
SILENCE_S = 60.0
"""Longest wait for a model's first token, and for each next one."""


@dataclass(frozen=True, eq=False)
class ReferenceVoice:
    """The recording whose voice an answer continues: its tokens, uint16 (n,), and its transcript."""

    tokens: np.ndarray
    text: str = ""

    @property
    def primer(self) -> np.ndarray | None:
        """The tokens to start the audio from; None if there are too few."""
        return self.tokens[-MAX_VOICE_TOKENS:] if len(self.tokens) >= MIN_VOICE_TOKENS else None


def read_reference(path: str | Path) -> ReferenceVoice:
    """Reads a token file and its transcript (the .txt of the same name, if any). Raises FileError, TokenError."""
    transcript = Path(path).with_suffix(".txt")
    if Path(path) == transcript or not transcript.is_file():
        return ReferenceVoice(read_tokens(path))
    return ReferenceVoice(read_tokens(path), read_text(transcript).strip())


def read_spec(url: str, *, api: str, template: str | None, tag: str | None) -> SpeechLMSpec:
    """A spec with the template from a file: `.json` for a whole request. Raises ConfigError, FileError."""
    spec = SpeechLMSpec(url, api, tags=(tag,) if tag else TAGS)
    if template is None:
        return spec
    return replace(spec, template=read_text(template), is_json=template.endswith(".json"))


def read_text(path: str | Path) -> str:
    """A text file, UTF-8. Raises FileError."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise FileError(f"{path} cannot be read as text: {reason_of(error)}") from None


class SpeechLM:
    """A language-model server, used with `async with`. The API key is `api_key`, else NEUCODEC_SPEECH_LM_KEY.

    `model` is the name in requests; without it the server or the template has to choose one. Raises ConfigError for a
    proxy of the environment that cannot be used.
    """

    def __init__(self, spec: SpeechLMSpec, *, model: str | None = None, api_key: str | None = None) -> None:
        self.spec = spec
        self._model = model
        key = api_key or os.environ.get(KEY_VARIABLE)
        proxy = proxy_for(spec.url)
        self._where = spec.url if proxy is None else f"{spec.url}, through the proxy {shown(proxy)},"
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_S),
            transport=httpx.AsyncHTTPTransport(proxy=proxy),
        )

    @asynccontextmanager
    async def answer(
        self, text: str, reference: ReferenceVoice | None = None
    ) -> AsyncIterator[AsyncIterator[SpeechPiece]]:
        """The model's speech for a text, piece by piece; leaving the context closes the HTTP stream.

        Raises ConfigError for a template that needs a reference; here and in the iteration SpeechLMError, and
        TokenError for an invalid token.
        """
        codes, said = ([], "") if reference is None else (reference.tokens.tolist(), reference.text)
        body = self.spec.body(text, model=self._model, codes=codes, reference_text=said)
        try:
            async with self._client.stream("POST", self.spec.target, json=body) as response:
                if response.status_code != httpx.codes.OK:
                    raise refusal(self._where, response.status_code, await response.aread())
                yield _pieces(response, AnswerParser(self.spec.tags, self.spec.stops))
        except httpx.HTTPError as error:
            raise unreachable(self._where, error) from None

    async def aclose(self) -> None:
        """Closes every connection to the server."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()


async def _pieces(response: httpx.Response, parser: AnswerParser) -> AsyncIterator[SpeechPiece]:
    async for payload in response.aiter_bytes():
        for piece in parser.feed(payload):
            yield piece
        if parser.is_done:
            break
    parser.finish()


@dataclass
class SpeechReport:
    """Times of speaking a text, in seconds since the request; None until they occur."""

    tokens: int = 0
    samples: int = 0
    first_token_s: float | None = None
    first_audio_s: float | None = None

    @property
    def first_audio_after_token_s(self) -> float | None:
        """Time from the first token to the first audio."""
        if self.first_token_s is None or self.first_audio_s is None:
            return None
        return self.first_audio_s - self.first_token_s


class TextToSpeech:
    """Speaks texts one at a time; `connection` is a decoding session with no other user."""

    def __init__(self, model: SpeechLM, connection: Connection, reference: ReferenceVoice | None = None) -> None:
        self._model, self._connection, self._reference = model, connection, reference
        self._has_failed = False
        self._clears = 0  # unanswered clears: events until their answer belong to an old text
        self._saying = asyncio.Lock()

    @property
    def is_usable(self) -> bool:
        """Whether the session is alive, as far as known."""
        return not self._has_failed and not self._connection.is_over

    async def prime(self) -> None:
        """Starts the audio of every text in the voice of the reference, if it has enough tokens."""
        primer = None if self._reference is None else self._reference.primer
        if primer is not None:
            await self._connection.prime(primer)

    async def say(self, text: str, report: SpeechReport | None = None) -> AsyncGenerator[np.ndarray, None]:
        """The audio of a text as it arrives: float32 (m,) at `connection.ready.output.rate`; updates `report`.

        If the model fails, its earlier speech is delivered before SpeechLMError, TokenError or ConfigError is raised;
        also raises the connection's errors. To interrupt, cancel the iteration or `aclose()` it.
        """
        async with self._saying:
            loop = asyncio.get_running_loop()
            answer = _Answer(report or SpeechReport(), loop.time())
            sending = asyncio.create_task(self._send(text, answer), name="speech of the language model")
            try:
                while answer.flushes_missing:
                    event = await self._event()
                    if isinstance(event, Cleared):
                        self._clears -= 1
                    elif self._clears:
                        continue
                    elif isinstance(event, Audio):
                        answer.heard(event.samples.size, loop.time())
                        yield event.samples
                    elif isinstance(event, Flushed):
                        answer.flushed += 1
                await sending
            finally:
                if answer.flushes_missing:
                    await self._interrupt(sending)
        if answer.failure is not None:
            raise answer.failure

    async def _event(self) -> Event:
        try:
            return await anext(self._connection)
        except StreamingError:
            self._has_failed = True
            raise

    async def _interrupt(self, sending: asyncio.Task[None]) -> None:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)  # closes the model's stream
        self._clears += 1
        with suppress(StreamingError):
            await self._connection.clear()

    async def _send(self, text: str, answer: "_Answer") -> None:
        """Sends the model's tokens to the server, with a flush after each utterance and after the answer."""
        connection = self._connection
        try:
            async with self._model.answer(text, self._reference) as pieces:
                async for piece in pieces:
                    answer.said(len(piece.tokens), asyncio.get_running_loop().time())
                    await connection.send(np.array(piece.tokens, np.uint16))
                    if piece.is_end:
                        answer.flushes += 1
                        await connection.flush()
        except Exception as failure:
            answer.failure = failure
        answer.flushes += 1
        answer.is_complete = True
        await connection.flush()


@dataclass
class _Answer:
    """One answer in progress: its requested and answered flushes, and its error."""

    report: SpeechReport
    asked_s: float
    flushes: int = 0
    flushed: int = 0
    is_complete: bool = False
    failure: Exception | None = None

    @property
    def flushes_missing(self) -> bool:
        """Whether more audio may arrive."""
        return not self.is_complete or self.flushed < self.flushes

    def said(self, tokens: int, now_s: float) -> None:
        if tokens and self.report.first_token_s is None:
            self.report.first_token_s = now_s - self.asked_s
        self.report.tokens += tokens

    def heard(self, samples: int, now_s: float) -> None:
        if self.report.first_audio_s is None:
            self.report.first_audio_s = now_s - self.asked_s
        self.report.samples += samples
