"""What the server answers before or instead of a WebSocket: probes, and refusals with their HTTP status."""

import json
from email.utils import formatdate
from http import HTTPStatus

from websockets.datastructures import Headers
from websockets.http11 import Response

from server.refusal import refusal_of
from streaming.errors import StreamingError
from streaming.protocol.messages import Failure, encode_message
from streaming.protocol.query import PATHS

HEALTH_PATH = "/healthz"
READY_PATH = "/readyz"
METRICS_PATH = "/metrics"


def plain(status: HTTPStatus, text: str, content_type: str) -> Response:
    """Text of any type."""
    body = text.encode()
    headers = [
        ("Date", formatdate(usegmt=True)),
        ("Connection", "close"),
        ("Content-Length", str(len(body))),
        ("Content-Type", content_type),
    ]
    return Response(status.value, status.phrase, Headers(headers), body)


def answer(status: HTTPStatus, body: object) -> Response:
    """A JSON response."""
    text = body if isinstance(body, str) else json.dumps(body)
    return plain(status, text + "\n", "application/json")


def refusal(error: StreamingError) -> Response:
    """An error as the WebSocket would have said it, with the status and the headers that go with it."""
    status, headers = refusal_of(error)
    response = answer(status, encode_message(Failure(error.code, str(error))))
    response.headers.update(headers)
    return response


def not_found(path: str) -> Response:
    """404, naming the paths that there are."""
    known = ", ".join([*PATHS, HEALTH_PATH, READY_PATH, METRICS_PATH])
    message = f"path {path[:80]!r} is unknown: the known ones are {known}"
    return answer(HTTPStatus.NOT_FOUND, encode_message(Failure("bad_path", message)))
