"""One session with a server: `async with connect(...)`, `send`, and `async for event in connection`.

The conversation itself is streaming.protocol's ClientSession; this shell moves its bytes through a WebSocket. There is
no task and no queue of its own behind it: `send` waits while the socket is full, reading stops while nobody iterates
(so iterate while you send), and leaving the context closes everything. Every wait has a deadline (Deadlines), the pings
of the WebSocket bound the wait for output of a session that has been asked for nothing. Exceptions of the socket
library are translated here, and only here.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from client.errors import DeadlineExceeded, Disconnected, Unreachable, error_of
from client.events import Audio, Cleared, Done, Event, Flushed, Marked, Tokens
from streaming.audio import pcm_from_bytes, pcm_to_bytes
from streaming.errors import CapacityError, ConfigError, ProtocolError, StreamingError
from streaming.protocol.messages import (
    SUBPROTOCOL,
    Clear,
    ClientMessage,
    End,
    Failure,
    Flush,
    Mark,
    Ready,
    StreamFormat,
    parse_server_message,
)
from streaming.protocol.query import SessionRequest, session_request
from streaming.protocol.session import ClientSession, State
from streaming.tokens import tokens_from_bytes, tokens_to_bytes

DEFAULT_URL = "ws://127.0.0.1:8765"
LARGEST_PACKET_SECONDS = 0.5
"""Longer input is cut into binary messages of this length, below every server's limit."""
LARGEST_MESSAGE_BYTES = 16 * 1024 * 1024
_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_ANSWERED: dict[type, type[ClientMessage]] = {Flushed: Flush, Cleared: Clear, Marked: Mark, Done: End}
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Deadlines:
    """The longest waits in seconds: for the connection and `ready`, for room to send, for an answer, for the close.

    `alive_s` is how long a silent connection may go without answering a ping.
    """

    open_s: float = 10.0
    send_s: float = 30.0
    answer_s: float = 30.0
    close_s: float = 2.0
    alive_s: float = 20.0


class Connection:
    """An open session. `ready` is what the server said about it: model, profile, latency_ms, formats."""

    def __init__(self, websocket: ClientConnection, session: ClientSession, ready: Ready, deadlines: Deadlines) -> None:
        self.ready = ready
        self._websocket = websocket
        self._session = session
        self._deadlines = deadlines
        self._asked: list[type[ClientMessage]] = []

    @property
    def input_position(self) -> int:
        """Samples or tokens sent since the session began."""
        return self._session.input_position

    @property
    def output_position(self) -> int:
        """Samples or tokens received since the session began."""
        return self._session.output_position

    async def send(self, chunk: np.ndarray) -> None:
        """Sends audio, float32 mono (n,) at `ready.input.rate`, or tokens (n,); waits while the socket is full.

        Raises AudioError or TokenError for what cannot be sent, DeadlineExceeded, Disconnected, or what the server
        reported.
        """
        payload = _to_wire(chunk, self._session.input)
        step = int(self._session.input.rate * LARGEST_PACKET_SECONDS) * self._session.input.unit_bytes
        for start in range(0, len(payload), step):
            await self._transmit(self._session.send_payload(payload[start : start + step]))

    async def flush(self) -> None:
        """Ends the utterance: its tail comes out, then a Flushed event; the stream starts anew."""
        await self._say(Flush())

    async def clear(self) -> None:
        """Barge-in: pending input and unsent output are dropped; nothing of the old utterance follows Cleared."""
        await self._say(Clear())

    async def mark(self, id: str | int) -> None:
        """Asks for a Marked event after the output of the last whole frame sent so far."""
        await self._say(Mark(id))

    async def end(self) -> None:
        """No more input: the tail comes out, then a Done event with the totals, then the iteration ends."""
        await self._say(End())

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        """The next event; StopAsyncIteration after Done. Raises what the server reported, Disconnected or
        DeadlineExceeded. Cancelling it loses nothing."""
        while self._session.state is not State.CLOSED:
            position = self._session.output_position
            received = self._session.receive(await self._receive())
            if isinstance(received, bytes):
                return _from_wire(received, self._session.output, position)
            if isinstance(received, Failure):
                raise error_of(received.code, received.message)
            if received is not None and not isinstance(received, Ready):
                self._settle(type(received))
                return received
        raise StopAsyncIteration

    async def _say(self, message: ClientMessage) -> None:
        text = self._session.send(message)
        self._asked.append(type(message))
        await self._transmit(text)

    def _settle(self, answer: type) -> None:
        """Takes what has been answered off the list of what the server owes."""
        asked = _ANSWERED.get(answer)
        if asked is Clear:
            del self._asked[: self._asked.index(Clear) + 1]
        elif asked in self._asked:
            self._asked.remove(asked)

    async def _transmit(self, data: bytes | str) -> None:
        try:
            async with asyncio.timeout(self._deadlines.send_s):
                await self._websocket.send(data)
        except TimeoutError:
            raise DeadlineExceeded(
                f"the server took no input for {self._deadlines.send_s:g} s: receive events while you send"
            ) from None
        except ConnectionClosed as closed:
            raise await self._last_words(closed) from None

    async def _receive(self) -> bytes | str:
        """The next message, within `answer_s` when the server owes an answer; the pings bound any other wait."""
        try:
            async with asyncio.timeout(self._deadlines.answer_s if self._asked else None):
                return await self._websocket.recv()
        except TimeoutError:
            raise DeadlineExceeded(
                f"the server gave no answer for {self._deadlines.answer_s:g} s: is it overloaded?"
            ) from None
        except ConnectionClosed as closed:
            raise _disconnected(closed) from None

    async def _last_words(self, closed: ConnectionClosed) -> StreamingError:
        """Why the server closed: its `error`, when one still waits to be read."""
        with suppress(ConnectionClosed, ProtocolError, TimeoutError):
            async with asyncio.timeout(self._deadlines.close_s):
                while True:
                    received = self._session.receive(await self._websocket.recv())
                    if isinstance(received, Failure):
                        return error_of(received.code, received.message)
        return _disconnected(closed)


@asynccontextmanager
async def connect(
    url: str = DEFAULT_URL,
    *,
    kind: str = "roundtrip",
    profile: str | None = None,
    input_format: str = "s16le",
    output_format: str = "s16le",
    stats: bool = False,
    access_token: str | None = None,
    deadlines: Deadlines | None = None,
) -> AsyncIterator[Connection]:
    """A session with the server at `url` (`ws://`, `wss://`, `http://` or `https://`, a path prefix is kept).

    `kind`: "encode" (audio to tokens), "decode" (tokens to audio) or "roundtrip" (audio to audio). Raises ConfigError
    for what the server does not offer, CapacityError when it is full, Unreachable when there is none.
    """
    deadlines = deadlines or Deadlines()
    request = session_request(
        kind,
        input_format=input_format,
        output_format=output_format,
        profile=profile,
        stats=stats,
        access_token=access_token,
    )
    address = _address(url)
    websocket, session, ready = await _open(address, request, deadlines)
    try:
        yield Connection(websocket, session, ready, deadlines)
    finally:
        await _close(websocket, deadlines)


def _address(url: str) -> str:
    """The URL's WebSocket form without a trailing slash. Raises ConfigError."""
    try:
        split = urlsplit(url if "://" in url else f"ws://{url}")
        _ = split.port  # raises ValueError when it is none
        if split.scheme not in _SCHEMES or not split.hostname or split.query or split.fragment:
            raise ValueError
    except ValueError:
        raise ConfigError(f"server URL {url!r} cannot be used: give one like {DEFAULT_URL}") from None
    return f"{_SCHEMES[split.scheme]}://{split.netloc}{split.path}".rstrip("/")


async def _open(
    address: str, request: SessionRequest, deadlines: Deadlines
) -> tuple[ClientConnection, ClientSession, Ready]:
    session = ClientSession(request.input, request.output)
    options: dict[str, Any] = {"proxy": None} if urlsplit(address).hostname in _LOOPBACK else {}
    websocket = None
    try:
        async with asyncio.timeout(deadlines.open_s):
            websocket = await open_websocket(
                address + request.target,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression=None,
                max_size=LARGEST_MESSAGE_BYTES,
                open_timeout=None,
                close_timeout=deadlines.close_s,
                ping_interval=deadlines.alive_s,
                ping_timeout=deadlines.alive_s,
                **options,
            )
            received = session.receive(await websocket.recv())
            if isinstance(received, Failure):
                raise error_of(received.code, received.message)
            if not isinstance(received, Ready):
                raise Unreachable(
                    f"what answers at {address} does not speak {SUBPROTOCOL}: its first message is no ready"
                )
            return websocket, session, received
    except BaseException as error:
        if websocket is not None:
            await _close(websocket, deadlines)
        translated = _translated(error, address, deadlines)
        if translated is error:
            raise
        raise translated from None


async def _close(websocket: ClientConnection, deadlines: Deadlines) -> None:
    """Closes in time, whatever the server does: a closing handshake cannot go out while the socket is full."""
    try:
        async with asyncio.timeout(deadlines.close_s):
            await websocket.close()
    except TimeoutError:
        websocket.transport.abort()
        await websocket.wait_closed()


def _translated(error: BaseException, address: str, deadlines: Deadlines) -> BaseException:
    """A failure to connect in the words of this project; what is no failure of the network is itself."""
    match error:
        case InvalidStatus():
            return _refusal(error, address)
        case InvalidURI():
            return ConfigError(f"server URL {address!r} cannot be used: give one like {DEFAULT_URL}")
        case TimeoutError():
            return Unreachable(f"no answer from {address} within {deadlines.open_s:g} s: is the server overloaded?")
        case OSError():
            return Unreachable(
                f"server not reachable at {address}: start it with `neucodec-server --model nano` ({error})"
            )
        case ConnectionClosed():
            return _disconnected(error)
        case InvalidHandshake() | ProtocolError() | EOFError():
            return Unreachable(f"what answers at {address} does not speak {SUBPROTOCOL} ({error})")
    return error


def _refusal(refused: InvalidStatus, address: str) -> StreamingError:
    """The server's HTTP answer in place of a session: an `error` message in JSON, or the words of a proxy."""
    status = refused.response.status_code
    said = (refused.response.body or b"").decode("utf-8", "replace").strip()[:1000]
    try:
        failure = parse_server_message(said)
    except ProtocolError:
        failure = None
    after = refused.response.headers.get("Retry-After")
    again = f" (try again in {after} s)" if after else ""
    if isinstance(failure, Failure):
        known = error_of(failure.code, failure.message + again)
        return ConfigError(failure.message) if type(known) is StreamingError else known
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        return CapacityError(f"{said or f'the server at {address} is full'}{again}")
    return Unreachable(f"what answers at {address} does not speak {SUBPROTOCOL}: HTTP {status} {said}".rstrip())


def _disconnected(closed: ConnectionClosed) -> Disconnected:
    received = closed.rcvd
    how = f"status {received.code} {received.reason}".rstrip() if received else "without a closing handshake"
    return Disconnected(f"the server ended the connection before the session was over ({how}): connect again")


def _to_wire(chunk: np.ndarray, stream: StreamFormat) -> bytes:
    return tokens_to_bytes(chunk) if stream.kind == "tokens" else pcm_to_bytes(chunk, stream.format)


def _from_wire(payload: bytes, stream: StreamFormat, position: int) -> Audio | Tokens:
    if stream.kind == "tokens":
        return Tokens(tokens_from_bytes(payload), position)
    return Audio(pcm_from_bytes(payload, stream.format), position)
