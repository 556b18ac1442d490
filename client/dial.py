"""Opens a WebSocket to a server, with key and `ready`, and closes it in time.

The only module that handles the WebSocket library's handshake; it translates the library's failures into the errors of
this project. Deadlines limit waits of a whole connection.
"""

import asyncio
import errno
import os
import re
import socket
import ssl as tls
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI, ProxyError
from websockets.frames import CloseCode
from websockets.typing import Subprotocol

from neucodec_streaming.client.errors import Disconnected, Unreachable, error_of
from neucodec_streaming.errors import (
    AuthError,
    CapacityError,
    ConfigError,
    LimitError,
    PathError,
    ProtocolError,
    StreamingError,
)
from neucodec_streaming.protocol.client_session import ClientSession
from neucodec_streaming.protocol.messages import SUBPROTOCOL, Failure, Ready, parse_server_message
from neucodec_streaming.proxies import LOOPBACK, proxy_for, shown

DEFAULT_URL = "ws://127.0.0.1:8765"
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_PLAIN_REFUSALS: dict[int, type[StreamingError]] = {
    HTTPStatus.UNAUTHORIZED: AuthError,
    HTTPStatus.FORBIDDEN: AuthError,
    HTTPStatus.TOO_MANY_REQUESTS: LimitError,
    HTTPStatus.SERVICE_UNAVAILABLE: CapacityError,
}
"""The error for a status without an `error` message, as from a proxy."""


@dataclass(frozen=True)
class Deadlines:
    """The longest waits in seconds: for the connection and `ready`, for room to send, for an answer, for the close.

    `alive_s`: interval of pings and the wait for their answers. `resume_s`: how long a session may be without a
    connection.
    """

    open_s: float = 10.0
    send_s: float = 30.0
    answer_s: float = 30.0
    close_s: float = 2.0
    alive_s: float = 20.0
    resume_s: float = 60.0


class Dialer:
    """Opens WebSockets to the server at `url` (`ws://`, `wss://`, `http://` or `https://`, with an optional path
    prefix).

    `retry_after_s` is the pause that the latest refusal asked for, else 0. Raises ConfigError for an invalid URL or
    key.
    """

    def __init__(self, url: str, api_key: str | None, deadlines: Deadlines, ssl: tls.SSLContext | None = None) -> None:
        self.address = _address(url)
        self.retry_after_s = 0
        self._host = urlsplit(self.address).hostname or ""
        self._headers = _headers(api_key)
        self._deadlines = deadlines
        self._proxy = proxy_for(self.address)
        if ssl is not None and not self.address.startswith("wss:"):
            raise ConfigError(f"ssl is set, but {self.address} does not use TLS: give a wss:// URL")
        self._options: dict[str, Any] = {} if ssl is None else {"ssl": ssl}

    async def open(self, target: str, session: ClientSession) -> ClientConnection:
        """A connection for path and query `target`, on which `session` has received its `ready`.

        Raises the server's error, or Unreachable.
        """
        self.retry_after_s = 0
        websocket = None
        try:
            async with asyncio.timeout(self._deadlines.open_s):
                websocket = await open_websocket(
                    self.address + target,
                    additional_headers=self._headers,
                    subprotocols=[Subprotocol(SUBPROTOCOL)],
                    compression=None,
                    max_size=MAX_MESSAGE_BYTES,
                    open_timeout=None,
                    close_timeout=self._deadlines.close_s,
                    ping_interval=self._deadlines.alive_s,
                    ping_timeout=self._deadlines.alive_s,
                    proxy=self._proxy,
                    **self._options,
                )
                received = session.receive(parse_server_message(await websocket.recv()))
                if isinstance(received, Failure):
                    raise error_of(received.code, received.message)
                if not isinstance(received, Ready):
                    raise ProtocolError("its first message is not `ready`")
                return websocket
        except BaseException as error:
            if websocket is not None:
                await self.close(websocket)
            translated = self._translated(error)
            if translated is error:
                raise
            raise translated from None

    async def close(self, websocket: ClientConnection) -> None:
        """Closes within the deadline: a closing handshake cannot be sent while the socket is full."""
        try:
            async with asyncio.timeout(self._deadlines.close_s):
                await websocket.close()
        except TimeoutError:
            websocket.transport.abort()
            await websocket.wait_closed()

    def _translated(self, error: BaseException) -> BaseException:
        """The package's error for one of a library; other errors unchanged."""
        match error:
            case InvalidStatus():
                return self._refusal(error)
            case InvalidURI():
                return ConfigError(f"server URL {self.address!r} is invalid: use one like {DEFAULT_URL}")
            case TimeoutError():
                return Unreachable(
                    f"no answer from {self.address} within {self._deadlines.open_s:g} s: is the server overloaded?"
                )
            case ProxyError() if self._proxy is not None:
                return Unreachable(
                    f"the proxy {shown(self._proxy)} of the environment did not connect to {self.address}"
                    f" ({_reason(error)}); set NO_PROXY={self._host} to connect without it"
                )
            case OSError():
                return self._unreachable(error)
            case ConnectionClosed():
                return disconnected(error)
            case InvalidHandshake() | ProtocolError() | EOFError():
                hint = "; if the server has TLS, give wss://" if self.address.startswith("ws:") else ""
                return Unreachable(f"{self.address} does not speak {SUBPROTOCOL} ({_reason(error)}){hint}")
        return error

    def _unreachable(self, error: OSError) -> StreamingError:
        match error:
            case socket.gaierror() if self._proxy is None:
                return Unreachable(f"host name {self._host!r} cannot be resolved ({_reason(error)}): check the URL")
            case tls.SSLCertVerificationError():
                return Unreachable(
                    f"the certificate of {self.address} is not trusted ({error.verify_message}): if it is private, give"
                    " the certificate of its authority"
                )
            case tls.SSLError():
                return Unreachable(f"{self.address} does not use TLS ({_reason(error)}): use a ws:// URL")
            case ConnectionResetError() if self.address.startswith("wss:"):
                return Unreachable(
                    f"{self.address} hung up during the TLS handshake: if it does not use TLS, use a ws:// URL"
                )
        via = f" through the proxy {shown(self._proxy)}" if self._proxy is not None else ""
        local = self._host in LOOPBACK
        hint = (
            "start it with `neucodec-server --model nano`" if local else "check the address, and that the server runs"
        )
        return Unreachable(f"server not reachable at {self.address}{via}: {hint} ({_reason(error)})")

    def _refusal(self, refused: InvalidStatus) -> StreamingError:
        """The error in a server's HTTP answer: an `error` message in JSON, or the words of a proxy."""
        status = refused.response.status_code
        said = (refused.response.body or b"").decode("utf-8", "replace").strip()[:1000]
        after = refused.response.headers.get("Retry-After", "")
        self.retry_after_s = int(after) if after.isascii() and after.isdecimal() else 0
        again = f" (try again in {self.retry_after_s} s)" if self.retry_after_s else ""
        try:
            failure = parse_server_message(said)
        except ProtocolError:
            failure = None
        if isinstance(failure, Failure):
            known = error_of(failure.code, failure.message + again)
            if isinstance(known, LimitError) and self.retry_after_s:
                known.after_s = self.retry_after_s
            if type(known) is AuthError:
                fault = "does not accept this API key" if self._headers else "asks for an API key"
                return AuthError(f"{self.address} {fault}")
            prefix = urlsplit(self.address).path
            if isinstance(known, PathError) and prefix:
                return PathError(f"{failure.message}: give the server's URL without {prefix!r}")
            return ConfigError(failure.message) if type(known) is StreamingError else known
        first_line = "" if said.startswith("<") else said.partition("\n")[0].strip()[:100]
        answered = f"HTTP {status} {first_line or refused.response.reason_phrase}".rstrip()
        if status == HTTPStatus.NOT_FOUND:
            return ConfigError(f"no NeuCodec server at {self.address} ({answered}): check the path of the URL")
        if status in _PLAIN_REFUSALS:
            return _PLAIN_REFUSALS[status](f"{self.address} answered {answered}{again}")
        return Unreachable(f"{self.address} does not speak {SUBPROTOCOL}: it answered {answered}")


def certificates(ca_file: str) -> tls.SSLContext:
    """An SSL context that verifies the server with the authorities in a file (PEM). Raises ConfigError."""
    try:
        return tls.create_default_context(cafile=ca_file)
    except OSError as error:  # OpenSSL's too
        raise ConfigError(f"{ca_file} is not a readable certificate file ({_reason(error)}): give a PEM file") from None


def is_loss(closed: ConnectionClosed) -> bool:
    """Whether the session may continue: the connection ended without a closing handshake, or the server is restarting.

    Our own unanswered close counts as a loss after missed pings, but not after an invalid message.
    """
    if closed.rcvd is not None:
        return closed.rcvd.code in (CloseCode.GOING_AWAY, CloseCode.SERVICE_RESTART)
    return closed.sent is None or closed.sent.code == CloseCode.INTERNAL_ERROR


def disconnected(closed: ConnectionClosed) -> Disconnected:
    """The error for a connection that ended before its session."""
    received = closed.rcvd
    how = f"status {received.code} {received.reason}".rstrip() if received else "without a closing handshake"
    return Disconnected(f"the server ended the connection before the session was over ({how}): connect again")


def _address(url: str) -> str:
    """The URL's WebSocket form without a trailing slash. Raises ConfigError."""
    try:
        if not isinstance(url, str):
            raise ValueError
        split = urlsplit(url if "://" in url else f"ws://{url}")
        _ = split.port  # raises ValueError if invalid
        if split.scheme not in _SCHEMES or not split.hostname or split.query or split.fragment:
            raise ValueError
    except ValueError:
        raise ConfigError(f"server URL {url!r} is invalid: use one like {DEFAULT_URL}") from None
    return f"{_SCHEMES[split.scheme]}://{split.netloc}{split.path}".rstrip("/")


def _reason(error: BaseException) -> str:
    """The reason of a system's or library's error in a few words; never empty."""
    if isinstance(error, tls.SSLError):
        return (error.reason or "TLS failed").replace("_", " ").lower()
    if isinstance(error, socket.gaierror):
        return error.strerror or "no address"
    if isinstance(error, OSError):
        numbers = [error.errno] if error.errno else [int(number) for number in re.findall(r"Errno (\d+)", str(error))]
        reasons = {os.strerror(number) for number in numbers if number in errno.errorcode}
        if reasons:
            return ", ".join(sorted(reasons))
    return str(error) or type(error).__name__


def _headers(api_key: str | None) -> dict[str, str]:
    """Returns the header that carries the key (RFC 6750, section 2.1)."""
    if api_key is None:
        return {}
    if not api_key or not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        raise ConfigError("the API key (not shown) is empty or contains spaces or non-ASCII characters: check it")
    return {"Authorization": f"Bearer {api_key}"}
