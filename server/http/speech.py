"""POST /v1/audio/speech: text to a language-model server, its tokens to a session, the audio to the client.

OpenAI's form of request, answer and error. The session is a regular one with this request as its transport: unread
audio pauses the device, and a paused device pauses the language model. A disconnecting client cancels the request,
which closes the language model's stream. The answer starts with the first audio, so that earlier failures have their
own status.
"""

import asyncio
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx
import numpy as np

from neucodec_streaming.errors import CapacityError, ConfigError, SpeechLMError, StreamingError, TokenError, error_of
from neucodec_streaming.protocol.messages import Done, End, Failure, Flush, Ready, ServerMessage
from neucodec_streaming.protocol.query import session_request
from neucodec_streaming.protocol.speech_lm import AnswerParser, SpeechLMSpec, check_text, refusal, unreachable
from neucodec_streaming.proxies import proxy_for
from neucodec_streaming.server.auth.gate import Gate
from neucodec_streaming.server.http.exchange import Exchange, HttpRequest, reply_with
from neucodec_streaming.server.http.responses import answer, error_body, status_and_headers
from neucodec_streaming.server.http.routes import Served
from neucodec_streaming.server.http.speech_formats import (
    CONTENT_TYPES,
    audio_event,
    done_event,
    event,
    make_encoder,
    response_formats,
)
from neucodec_streaming.server.metrics import Metrics
from neucodec_streaming.server.sessions.session import Session
from neucodec_streaming.server.sessions.transport import HoldableTransport
from neucodec_streaming.tokens import tokens_to_bytes

STREAM_FORMATS = ("audio", "sse")
DEFAULT_VOICE = "default"
CONNECT_S = 10.0
SILENCE_S = 60.0
"""Longest wait for a language model's first token, and for each next one."""
MAX_QUEUED = 8
"""Limit of queued audio pieces; beyond it the session is not stepped."""
_log = logging.getLogger(__name__)
logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every request


@dataclass(frozen=True)
class SpeechRequest:
    """A client's request, checked."""

    text: str
    model: str | None
    response_format: str
    stream_format: str
    profile: str | None
    voice: str | None


def parse_request(body: bytes, voices: Iterable[str] = ()) -> SpeechRequest:
    """Parses a request's JSON; `voices` are those of the server. Raises ConfigError naming the field, its value and the
    reason.
    """
    try:
        fields: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the body is not JSON ({error}): send a JSON object") from None
    if not isinstance(fields, dict):
        raise ConfigError("the body is not a JSON object: send one with input, the text to speak")
    text = fields.get("input")
    if not isinstance(text, str) or not text.strip():
        raise ConfigError(f"input is {str(text)[:40]!r}: expected the text to speak")
    check_text("input", text)
    voice = fields.get("voice") or DEFAULT_VOICE
    known = (DEFAULT_VOICE, *(name for name in voices if name != DEFAULT_VOICE))
    if voice not in known:
        raise ConfigError(f"voice {str(voice)[:40]!r} is unknown: choose one of {', '.join(known)}")
    if fields.get("speed", 1) != 1:
        raise ConfigError(f"speed is {str(fields['speed'])[:40]}: only 1 is supported, or leave it out")
    for name in ("model", "profile"):
        if not isinstance(fields.get(name), str | None):
            raise ConfigError(f"{name} is {str(fields[name])[:40]!r}: expected a name")
        check_text(name, fields.get(name) or "")
    return SpeechRequest(
        text,
        fields.get("model"),
        _choice(fields, "response_format", response_formats()),
        _choice(fields, "stream_format", STREAM_FORMATS),
        fields.get("profile"),
        None if voice == DEFAULT_VOICE else voice,
    )


def _choice(fields: dict[str, Any], name: str, choices: tuple[str, ...]) -> str:
    value = fields.get(name) or choices[0]
    if value not in choices:
        raise ConfigError(f"{name} {str(value)[:40]!r} is unknown: choose one of {', '.join(choices)}")
    return value


class SpeechOutput(HoldableTransport):
    """The transport of a request's session: a bounded queue of audio (`next_audio`), and the reason of its end.

    Held while the language model is not to be read, also before the session's first message, `ready`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hold()
        self.is_open = True
        self.failure: Failure | None = None
        self.done: Done | None = None
        self._audio: asyncio.Queue[bytes | None] = asyncio.Queue()  # None: the session is over

    @property
    def is_writable(self) -> bool:
        """Whether there is room for more audio."""
        return self._audio.qsize() < MAX_QUEUED

    def send(self, message: bytes | ServerMessage) -> None:
        """Accepts audio and the session's end; other messages do not matter here."""
        if isinstance(message, bytes):
            self._audio.put_nowait(message)
        elif isinstance(message, Ready):
            self.release()
        elif isinstance(message, Failure):
            self.failure = message
        elif isinstance(message, Done):
            self.done = message

    def close(self, code: int, reason: str = "") -> None:
        """The session is over."""
        self.is_open = False
        self._audio.put_nowait(None)
        self.release()

    def drop(self) -> None:
        """The same, since such a session is never resumed."""
        self.close(0)

    async def next_audio(self, session: Session) -> bytes | None:
        """The next audio, s16le; None after the last."""
        audio = await self._audio.get()
        if audio is not None:
            session.writable()
        return audio


class SpeechEndpoint:
    """Answers the requests of one server; `key` is the language model's."""

    def __init__(self, spec: SpeechLMSpec, key: str | None, served: Served, gate: Gate, metrics: Metrics) -> None:
        self._spec = spec
        self._served, self._gate, self._metrics = served, gate, metrics
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_S),
            transport=httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=None), proxy=proxy_for(spec.url)),
        )

    async def aclose(self) -> None:
        """Closes the connections to the language model."""
        await self._client.aclose()

    async def answer(self, request: HttpRequest, exchange: Exchange) -> None:
        """Streams the requested speech, or answers with the error."""
        try:
            caller = self._gate.check(request.headers, None, request.peer)
            sessions = self._served.ready()
            asked = parse_request(request.body, sessions.model.voices.tokens)
            wanted = session_request("decode", profile=asked.profile, voice=asked.voice)
            session = sessions.open(wanted, caller)
        except StreamingError as error:
            self._refuse(error, exchange)
            return
        ready, output = session.ready, SpeechOutput()
        _log.info(
            "session %s of %s opened: speech, profile %s",
            *(ready.session, caller, ready.profile),
            extra={"session": ready.session},
        )
        session.opened(output)
        relaying = asyncio.create_task(self._relay(asked, session, output), name="speech of the language model")
        try:
            await self._send(asked, session, output, relaying, exchange)
        finally:
            relaying.cancel()
            await asyncio.gather(relaying, return_exceptions=True)  # closes the language model's stream
            session.lost(True)

    async def _send(
        self,
        asked: SpeechRequest,
        session: Session,
        output: SpeechOutput,
        relaying: "asyncio.Task[StreamingError | None]",
        exchange: Exchange,
    ) -> None:
        """Sends audio to the client as it arrives, then the end or the error."""
        encoder = make_encoder(asked.response_format, session.ready.output.rate)
        is_sse = asked.stream_format == "sse"
        wrapped = audio_event if is_sse else bytes
        while (audio := await output.next_audio(session)) is not None:
            if not exchange.has_begun:
                content_type = "text/event-stream" if is_sse else CONTENT_TYPES[asked.response_format]
                exchange.begin(HTTPStatus.OK, {"Content-Type": content_type, "Cache-Control": "no-store"})
            if data := await encoder.feed(audio):
                exchange.write(wrapped(data))
            await exchange.drained()
        failure = self._failure(output, await relaying if output.done else None)
        if failure is not None and not exchange.has_begun:
            self._refuse(failure, exchange)
        elif failure is not None:
            _log.info("speech was interrupted: %s", failure, extra={"session": session.ready.session})
            if is_sse:
                exchange.write(event({"type": "error", **error_body(failure)}))
                exchange.finish()
            else:
                exchange.abort()
        else:
            if data := await encoder.finish():
                exchange.write(wrapped(data))
            if is_sse:
                assert output.done is not None, "or there was a failure"
                exchange.write(done_event(output.done.input))
            exchange.finish()

    def _failure(self, output: SpeechOutput, failure: StreamingError | None) -> StreamingError | None:
        """Why the answer is incomplete; None if it is complete."""
        if output.failure is not None:
            return error_of(output.failure.code, output.failure.message)
        return failure if output.done else CapacityError("the server is shutting down: try again or use another server")

    async def _relay(self, asked: SpeechRequest, session: Session, output: SpeechOutput) -> StreamingError | None:
        """Passes the language model's tokens to the session, and its end; returns an error if they are incomplete."""
        failure: StreamingError | None = None
        try:
            body = self._spec.body(asked.text, model=asked.model)
            async with self._client.stream("POST", self._spec.target, json=body) as response:
                if response.status_code != HTTPStatus.OK:
                    raise refusal(self._spec.url, response.status_code, await response.aread())
                parser = AnswerParser(self._spec.tags, self._spec.stops)
                async for payload in response.aiter_bytes():
                    for piece in parser.feed(payload):
                        await output.released()
                        if piece.tokens:
                            session.received(tokens_to_bytes(np.array(piece.tokens, np.uint16)))
                        if piece.is_end:
                            session.received(Flush())
                    if parser.is_done:
                        break
                parser.finish()
        except httpx.HTTPError as error:
            failure = unreachable(self._spec.url, error)
        except (SpeechLMError, TokenError, ConfigError) as error:
            failure = SpeechLMError(str(error))
        except Exception:
            _log.exception("the speech of the language model failed", extra={"session": session.ready.session})
            failure = StreamingError("internal error: try again")
        await output.released()
        session.received(End())
        return failure

    def _refuse(self, error: StreamingError, exchange: Exchange) -> None:
        self._metrics.refusals.labels(error.code).inc()
        status, headers = status_and_headers(error)
        reply_with(exchange, answer(status, error_body(error), headers))
