"""What the server answers before or instead of a WebSocket: probes, and refusals with their HTTP status."""

import json
from http import HTTPStatus

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Response

from server.refusal import refusal_of
from streaming.errors import StreamingError
from streaming.protocol.messages import Failure, encode_message
from streaming.protocol.query import PATHS

HEALTH_PATH = "/healthz"
READY_PATH = "/readyz"
METRICS_PATH = "/metrics"


def answer(socket: ServerConnection, status: HTTPStatus, body: object) -> Response:
    """A JSON response."""
    text = body if isinstance(body, str) else json.dumps(body)
    return plain(socket, status, text + "\n", "application/json")


def plain(socket: ServerConnection, status: HTTPStatus, text: str, content_type: str) -> Response:
    """Text of any type."""
    response = socket.respond(status, text)
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = content_type
    return response


def refusal(socket: ServerConnection, error: StreamingError) -> Response:
    """An error as the WebSocket would have said it, with the status and the headers that go with it."""
    status, headers = refusal_of(error)
    response = answer(socket, status, encode_message(Failure(error.code, str(error))))
    for name, value in headers.items():
        response.headers[name] = value
    return response


def not_found(socket: ServerConnection, path: str) -> Response:
    """404, naming the paths that there are."""
    known = ", ".join([*PATHS, HEALTH_PATH, READY_PATH, METRICS_PATH])
    message = f"path {path[:80]!r} is unknown: the known ones are {known}"
    return answer(socket, HTTPStatus.NOT_FOUND, encode_message(Failure("bad_path", message)))
