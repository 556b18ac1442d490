"""The HTTP answer that an error becomes when it is known before the upgrade: a status, and headers that tell more."""

from http import HTTPStatus

from streaming.errors import (
    AuthError,
    CapacityError,
    ConfigError,
    DeviceError,
    LimitError,
    OriginError,
    StreamingError,
)

RETRY_AFTER_S = 1
_STATUS: dict[type, HTTPStatus] = {
    StreamingError: HTTPStatus.INTERNAL_SERVER_ERROR,
    ConfigError: HTTPStatus.BAD_REQUEST,
    AuthError: HTTPStatus.UNAUTHORIZED,
    OriginError: HTTPStatus.FORBIDDEN,
    CapacityError: HTTPStatus.SERVICE_UNAVAILABLE,
    LimitError: HTTPStatus.TOO_MANY_REQUESTS,
    DeviceError: HTTPStatus.SERVICE_UNAVAILABLE,
}


def refusal_of(error: StreamingError) -> tuple[HTTPStatus, dict[str, str]]:
    """The status and the headers for an error, those of its nearest class that has some (RFC 9110, RFC 6750)."""
    status = next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
    match status:
        case HTTPStatus.UNAUTHORIZED:
            return status, {"WWW-Authenticate": "Bearer"}
        case HTTPStatus.TOO_MANY_REQUESTS | HTTPStatus.SERVICE_UNAVAILABLE:
            after_s = error.after_s if isinstance(error, LimitError) else RETRY_AFTER_S
            return status, {"Retry-After": str(after_s)}
    return status, {}
