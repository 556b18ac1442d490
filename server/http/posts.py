"""Answers methods other than GET and HEAD: POSTs for speech and for the page's comparison, 405 for others."""

from http import HTTPStatus

from websockets.http11 import Response

from neucodec_streaming.errors import ConfigError
from neucodec_streaming.protocol.query import PATHS
from neucodec_streaming.server.http.exchange import Exchange, HttpRequest, reply_with
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
        self._speech, self._compare = speech, compare

    async def answer(self, request: HttpRequest, exchange: Exchange) -> None:
        """Answers one request."""
        if request.path == SPEECH_PATH and request.method == "POST":
            if self._speech is not None:
                await self._speech.answer(request, exchange)
            else:
                reply_with(exchange, _no_speech())
        elif request.path == COMPARE_PATH and request.method == "POST" and self._compare is not None:
            await self._compare.answer(request, exchange)
        elif request.path == SPEECH_PATH or (request.path == COMPARE_PATH and self._compare is not None):
            reply_with(exchange, method_not_allowed(request.path, request.method, "POST"))
        elif request.path in GET_PATHS:
            reply_with(exchange, method_not_allowed(request.path, request.method, "GET"))
        else:
            reply_with(exchange, not_found(request.path))


def _no_speech() -> Response:
    error = ConfigError("this server has no speech language model: start it with --speech-lm-url")
    return answer(HTTPStatus.NOT_FOUND, error_body(error, HTTPStatus.NOT_FOUND))
