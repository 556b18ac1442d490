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

import numpy as np
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from client.dial import DEFAULT_URL, Deadlines, Dialer, disconnected
from client.errors import DeadlineExceeded, error_of
from client.events import Audio, Cleared, Done, Event, Flushed, Marked, Tokens
from streaming.audio import pcm_from_bytes, pcm_to_bytes
from streaming.config import INPUT_RATE, OUTPUT_RATE
from streaming.errors import ProtocolError, StreamingError
from streaming.protocol.messages import Clear, ClientMessage, End, Failure, Flush, Mark, Ready, StreamFormat
from streaming.protocol.query import session_request
from streaming.protocol.session import ClientSession, State
from streaming.tokens import tokens_from_bytes, tokens_to_bytes

LARGEST_PACKET_SECONDS = 0.5
"""Longer input is cut into binary messages of this length, below every server's limit."""
_ANSWERED: dict[type, type[ClientMessage]] = {Flushed: Flush, Cleared: Clear, Marked: Mark, Done: End}


class Connection:
    """An open session. `ready` is what the server said about it: model, profile, latency_ms, formats."""

    def __init__(self, websocket: ClientConnection, session: ClientSession, deadlines: Deadlines) -> None:
        assert session.ready is not None
        self.ready = session.ready
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
            raise disconnected(closed) from None

    async def _last_words(self, closed: ConnectionClosed) -> StreamingError:
        """Why the server closed: its `error`, when one still waits to be read."""
        with suppress(ConnectionClosed, ProtocolError, TimeoutError):
            async with asyncio.timeout(self._deadlines.close_s):
                while True:
                    received = self._session.receive(await self._websocket.recv())
                    if isinstance(received, Failure):
                        return error_of(received.code, received.message)
        return disconnected(closed)


@asynccontextmanager
async def connect(
    url: str = DEFAULT_URL,
    *,
    kind: str = "roundtrip",
    profile: str | None = None,
    input_format: str = "s16le",
    output_format: str = "s16le",
    input_rate: int = INPUT_RATE,
    output_rate: int = OUTPUT_RATE,
    stats: bool = False,
    api_key: str | None = None,
    deadlines: Deadlines | None = None,
) -> AsyncIterator[Connection]:
    """A session with the server at `url` (`ws://`, `wss://`, `http://` or `https://`, a path prefix is kept).

    `kind`: "encode" (audio to tokens), "decode" (tokens to audio) or "roundtrip" (audio to audio); formats and rates
    are those of the audio. `api_key` goes into a header, never into the URL. Raises ConfigError for what the server
    does not offer, AuthError without a key that it knows, CapacityError when it is full (LimitError: for this key or
    address), Unreachable when there is none.
    """
    deadlines = deadlines or Deadlines()
    request = session_request(
        kind,
        input_format=input_format,
        output_format=output_format,
        input_rate=input_rate,
        output_rate=output_rate,
        profile=profile,
        stats=stats,
    )
    dialer = Dialer(url, api_key, deadlines)
    session = ClientSession(request.input, request.output)
    websocket = await dialer.open(request.target, session)
    try:
        yield Connection(websocket, session, deadlines)
    finally:
        await dialer.close(websocket)


def _to_wire(chunk: np.ndarray, stream: StreamFormat) -> bytes:
    return tokens_to_bytes(chunk) if stream.kind == "tokens" else pcm_to_bytes(chunk, stream.format)


def _from_wire(payload: bytes, stream: StreamFormat, position: int) -> Audio | Tokens:
    if stream.kind == "tokens":
        return Tokens(tokens_from_bytes(payload), position)
    return Audio(pcm_from_bytes(payload, stream.format), position)
