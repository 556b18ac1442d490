"""HTTP responses before or in place of a WebSocket: probes, and refusals with their status."""

import json
from collections.abc import Collection, Mapping
from email.utils import formatdate
from http import HTTPStatus

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from neucodec_streaming.errors import (
    AuthError,
    CapacityError,
    ConfigError,
    DeviceError,
    LimitError,
    OriginError,
    SpeechLMError,
    StreamingError,
)
from neucodec_streaming.protocol.messages import Failure, encode_message
from neucodec_streaming.protocol.query import PATHS

SERVER_NAME = "neucodec-streaming"
HEALTH_PATH = "/healthz"
READY_PATH = "/readyz"
METRICS_PATH = "/metrics"
SPEECH_PATH = "/v1/audio/speech"
COMPARE_PATH = "/v1/compare"
JSON = "application/json"
RETRY_AFTER_S = 1
_STATUS: dict[type, HTTPStatus] = {
    StreamingError: HTTPStatus.INTERNAL_SERVER_ERROR,
    ConfigError: HTTPStatus.BAD_REQUEST,
    AuthError: HTTPStatus.UNAUTHORIZED,
    OriginError: HTTPStatus.FORBIDDEN,
    CapacityError: HTTPStatus.SERVICE_UNAVAILABLE,
    LimitError: HTTPStatus.TOO_MANY_REQUESTS,
    DeviceError: HTTPStatus.SERVICE_UNAVAILABLE,
    SpeechLMError: HTTPStatus.BAD_GATEWAY,
}
_ERROR_TYPES = {
    HTTPStatus.BAD_REQUEST: "invalid_request_error",
    HTTPStatus.NOT_FOUND: "invalid_request_error",
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}
"""OpenAI's error type for a status; server_error for others."""


def method_of(request: Request) -> str:
    """The method of the request; GET before websockets 17, which accepts no other."""
    return getattr(request, "method", "GET")


def plain(status: HTTPStatus, text: str, content_type: str, headers: Mapping[str, str] | None = None) -> Response:
    """A text response."""
    body = text.encode()
    always = {"Date": formatdate(usegmt=True), "Connection": "close", "Content-Length": str(len(body))}
    fields = Headers({**always, "Content-Type": content_type, **(headers or {})})
    return Response(status.value, status.phrase, fields, body)


def answer(status: HTTPStatus, body: object, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response."""
    return plain(status, json.dumps(body) + "\n", JSON, headers)


def failure(status: HTTPStatus, code: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """A response with the WebSocket's `error` message."""
    return plain(status, encode_message(Failure(code, message)) + "\n", JSON, headers)


def error_response(error: StreamingError) -> Response:
    """An error as the WebSocket's `error` message, with the status and headers for it."""
    status, headers = status_and_headers(error)
    return failure(status, error.code, str(error), headers)


def status_and_headers(error: StreamingError) -> tuple[HTTPStatus, dict[str, str]]:
    """Status and headers for an error, from its nearest class in the table (RFC 9110, RFC 6750)."""
    status = next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
    match status:
        case HTTPStatus.UNAUTHORIZED:
            return status, {"WWW-Authenticate": "Bearer"}
        case HTTPStatus.TOO_MANY_REQUESTS | HTTPStatus.SERVICE_UNAVAILABLE:
            after_s = error.after_s if isinstance(error, LimitError) else RETRY_AFTER_S
            return status, {"Retry-After": str(after_s)}
    return status, {}


def error_body(error: StreamingError, status: HTTPStatus | None = None) -> dict[str, object]:
    """An error in OpenAI's form; `status` overrides that of the error's class."""
    kind = _ERROR_TYPES.get(status or status_and_headers(error)[0], "server_error")
    return {"error": {"message": str(error), "type": kind, "param": None, "code": error.code}}


def method_not_allowed(path: str, method: str, allowed: str) -> Response:
    """405, naming the allowed method."""
    message = f"{path} does not support method {method[:20]}: use {allowed}"
    return failure(HTTPStatus.METHOD_NOT_ALLOWED, "bad_method", message, {"Allow": allowed})


def upgrade_required() -> Response:
    """426: the session could be opened, by a WebSocket."""
    message = "this path serves WebSockets: connect with one"
    return failure(HTTPStatus.UPGRADE_REQUIRED, "no_websocket", message, {"Upgrade": "websocket"})


def not_found(path: str, kinds: Collection[str] = tuple(PATHS.values())) -> Response:
    """404, listing the paths, of sessions those of `kinds`."""
    sessions = [known for known, kind in PATHS.items() if kind in kinds]
    known = ", ".join([*sessions, SPEECH_PATH, HEALTH_PATH, READY_PATH, METRICS_PATH])
    what = "not served here" if path in PATHS else "unknown"
    message = f"path {path[:80]!r} is {what}: choose one of {known}"
    return failure(HTTPStatus.NOT_FOUND, "bad_path", message)
