"""Answers methods other than GET and HEAD: POSTs for speech and for the page's comparison, 405 for others."""

from http import HTTPStatus

from neucodec_streaming.errors import ConfigError
from neucodec_streaming.protocol.query import PATHS
from neucodec_streaming.server.http.exchange import Exchange, HttpHandler, HttpRequest, reply_with
from neucodec_streaming.server.http.other_codecs import CompareEndpoint
from neucodec_streaming.server.http.responses import (
    COMPARE_PATH,
    HEALTH_PATH,
    METRICS_PATH,
    READY_PATH,
    SPEECH_PATH,
    answer,
    error_body,
    method_not_allowed,
    not_found,
)
from neucodec_streaming.server.http.speech import SpeechEndpoint

GET_PATHS = (*PATHS, HEALTH_PATH, READY_PATH, METRICS_PATH, "/")


class Posts:
    """The POST routes of one server; `speech` is None without a language model, `compare` without the page."""

    def __init__(self, speech: SpeechEndpoint | None, compare: CompareEndpoint | None) -> None:
        self._handlers: dict[str, HttpHandler] = {SPEECH_PATH: _without_speech if speech is None else speech.answer}
        if compare is not None:
            self._handlers[COMPARE_PATH] = compare.answer

    async def answer(self, request: HttpRequest, exchange: Exchange) -> None:
        """Answers one request."""
        path, method = request.path, request.method
        if path in self._handlers and method == "POST":
            await self._handlers[path](request, exchange)
        elif path in self._handlers:
            reply_with(exchange, method_not_allowed(path, method, "POST"))
        elif path in GET_PATHS:
            reply_with(exchange, method_not_allowed(path, method, "GET"))
        else:
            reply_with(exchange, not_found(path))


async def _without_speech(request: HttpRequest, exchange: Exchange) -> None:
    error = ConfigError("this server has no speech language model: start it with --speech-lm-url")
    reply_with(exchange, answer(HTTPStatus.NOT_FOUND, error_body(error, HTTPStatus.NOT_FOUND)))
