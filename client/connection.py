"""One session with a server: `async with connect(...)`, `send`, and `async for event in connection`.

The protocol's ClientSession holds the state; this shell moves its bytes through WebSockets. Its only task (`_run`)
writes sent input in order, and after a lost connection opens another one and continues the session, while `send` still
accepts some input. `send` waits while the socket is full, reading stops while nothing iterates (so iterate while you
send), and leaving the context closes everything. Input that the socket has not taken is held here, so that `clear` can
drop it and is sent next. Every wait has a deadline (dial.Deadlines); WebSocket pings bound the wait for unrequested
messages, so a session may be quiet for hours.
"""

import asyncio
import random
import ssl as tls
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from logging import getLogger

import numpy as np
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from neucodec_streaming.audio import pcm_from_bytes
from neucodec_streaming.client.dial import DEFAULT_URL, Deadlines, Dialer, disconnected, is_loss
from neucodec_streaming.client.errors import DeadlineExceeded, Disconnected, Unreachable, error_of
from neucodec_streaming.client.events import Done, Event, Resumed
from neucodec_streaming.client.payload import from_payload, to_payload
from neucodec_streaming.client.session import LiveSession
from neucodec_streaming.config import INPUT_RATE
from neucodec_streaming.errors import CapacityError, DeviceError, InputError, LocalProtocolError, StreamingError
from neucodec_streaming.protocol.client_session import ClientSession
from neucodec_streaming.protocol.messages import (
    Clear,
    ClientMessage,
    Failure,
    Ready,
    encode_message,
    parse_server_message,
)
from neucodec_streaming.protocol.query import SessionRequest, session_request
from neucodec_streaming.protocol.states import State

MAX_PACKET_SECONDS = 0.5
"""Longer input is cut into binary messages of this length, below every server's limit."""
WAITING_SECONDS = 0.5
"""Input that may wait for the socket before `send` waits, so that several packets are sent, and arrive, at a time."""
LOST_SECONDS = 30.0
"""The same limit while the connection is lost."""
MAX_STALE_SECONDS = 0.5
"""Age of a live session's input above which it is dropped after a lost connection, with the output of older input."""
FIRST_PAUSE_S, MAX_PAUSE_S = 0.1, 3.0
"""Pause before another attempt to connect; each is twice the last one, minus up to half at random."""
PASSING = (Unreachable, Disconnected, CapacityError, DeviceError)
"""Errors that another attempt may avoid."""
_log = getLogger(__name__)


class Connection(LiveSession):
    """An open session. `ready` is the server's description of it: model, profile, latency_ms, formats."""

    def __init__(
        self,
        dialer: Dialer,
        request: SessionRequest,
        session: ClientSession,
        websocket: ClientConnection,
        deadlines: Deadlines,
        *,
        resume: bool,
        live: bool,
        raw: bool,
    ) -> None:
        self._dialer, self._request, self._session, self._websocket = dialer, request, session, websocket
        self._deadlines, self._resume, self._live, self._raw = deadlines, resume, live, raw
        self._outbox: deque[bytes | ClientMessage] = deque()
        self._pending = 0  # units of input that the socket has not taken
        self._clears = 0  # number of clears: a `send` in progress belongs to an older utterance if it changes
        self._wait: asyncio.Timeout | None = None  # deadline of the next message, while something reads
        self._resumed: Resumed | None = None
        self._is_done = False
        self._closed: ConnectionClosed | None = None  # the error that ended the connection for good
        self._failure: StreamingError | None = None
        self._lost_at_s: float | None = None
        self._reading = asyncio.Lock()
        self._changed = asyncio.Event()

    @property
    def ready(self) -> Ready:
        """The latest `ready`."""
        assert self._session.ready is not None
        return self._session.ready

    @property
    def input_position(self) -> int:
        """Samples or tokens sent since the session began."""
        return self._session.input_position

    @property
    def output_position(self) -> int:
        """Samples or tokens received since the session began."""
        return self._session.output_position

    @property
    def is_over(self) -> bool:
        """Whether the session has ended, by `end`, an error or a loss of the connection for good."""
        return self._closed is not None or self._failure is not None or self._session.is_over

    @property
    def lost_s(self) -> float | None:
        """Seconds since the connection was lost; None while it is open."""
        return None if self._lost_at_s is None else time.monotonic() - self._lost_at_s

    async def send(self, chunk: np.ndarray) -> None:
        """Sends audio, float32 mono (n,) at `ready.input.rate`, or tokens (n,); waits while the socket is full.

        While the connection is lost it accepts LOST_SECONDS of input, then waits too. A cancelled call has sent all or
        a part of the chunk, as `input_position` tells. Raises AudioError or TokenError for invalid input,
        DeadlineExceeded, Disconnected, or the server's error.
        """
        try:
            payload = to_payload(chunk, self._session.input)
        except InputError as error:
            unit = self._session.input.unit
            raise type(error)(f"after {self.input_position} {unit}s of the stream: {error}") from None
        await self.send_bytes(payload)

    async def send_bytes(self, data: bytes) -> None:
        """Sends samples or tokens in the format of `ready.input`, such as mu-law from a telephone.

        Otherwise as `send`. A `clear` drops the unsent rest of a call in progress. Raises AudioError or TokenError for
        a partial sample or token.
        """
        stream, clears = self._session.input, self._clears
        stream.count(data)
        if stream.format == "f32le":
            pcm_from_bytes(data, stream.format)
        step = int(stream.rate * MAX_PACKET_SECONDS) * stream.unit_bytes
        for start in range(0, len(data), step):
            self._raise_failure()
            packet = self._session.send_payload(bytes(data[start : start + step]))
            self._pending += stream.count(packet)
            await self._give(packet)
            if self._clears != clears:
                return

    def _withdraw(self) -> None:
        """Takes back the payload that the socket has not taken; requests are still sent, since each has an answer."""
        units = sum(self._session.input.count(item) for item in self._outbox if isinstance(item, bytes))
        self._outbox = deque(item for item in self._outbox if not isinstance(item, bytes))
        self._session.withdraw(units)
        self._pending -= units
        self._changed.set()

    async def __anext__(self) -> Event:
        """The next event; StopAsyncIteration after Done. Raises the server's error, Disconnected or DeadlineExceeded.
        Cancelling it loses nothing.
        """
        async with self._reading:
            while not self._is_done:
                await self._until(lambda: self._session.state in (State.STREAMING, State.ENDING))
                if self._resumed is not None:
                    event, self._resumed = self._resumed, None
                    return event
                received = await self._receive()
                if received is not None:
                    self._is_done = isinstance(received, Done)
                    return received
        raise StopAsyncIteration

    async def _receive(self) -> Event | None:
        """The server's next message, None if it is not an event; within `answer_s` if the server owes an answer."""
        websocket = self._websocket
        try:
            async with asyncio.timeout(self._deadlines.answer_s if self._session.is_owed else None) as self._wait:
                data = await websocket.recv()
        except TimeoutError:
            raise DeadlineExceeded(
                f"no answer from the server within {self._deadlines.answer_s:g} s: it may be overloaded"
            ) from None
        except ConnectionClosed as closed:
            if not self._lose(websocket, closed):
                raise self._failed(disconnected(closed)) from None
            return None
        finally:
            self._wait = None
        if websocket is not self._websocket or self._session.is_lost:
            return None  # it will arrive again
        received = self._session.receive(parse_server_message(data))
        if isinstance(received, bytes):
            position = self._session.output_position - self._session.output.count(received)
            return from_payload(received, self._session.output, position, self._raw)
        if isinstance(received, Failure):
            raise self._failed(error_of(received.code, received.message))
        return None if isinstance(received, Ready) else received

    async def _say(self, message: ClientMessage) -> None:
        self._raise_failure()
        self._session.send(message)
        if isinstance(message, Clear):
            self._clears += 1
            if not self._session.is_lost:
                self._withdraw()
        if self._wait is not None and self._wait.when() is None:
            self._wait.reschedule(asyncio.get_running_loop().time() + self._deadlines.answer_s)
        await self._give(message)

    async def _give(self, item: bytes | ClientMessage) -> None:
        """Queues the session's input and waits for room; while the connection is lost the session keeps it."""
        if self._closed is None:
            if not self._session.is_lost:
                self._outbox.append(item)
                self._changed.set()
            await self._until(self._has_room)
            if self._has_room():
                return
        raise await self._last_words()

    def _has_room(self) -> bool:
        if self._session.is_lost and self._live:
            return True  # most of it will be dropped
        most_s = LOST_SECONDS if self._session.is_lost else WAITING_SECONDS
        return self._pending <= most_s * self._session.input.rate

    async def _until(self, reached: Callable[[], bool]) -> None:
        """Waits until a condition holds or never will. Raises the error that ended the session."""
        while not reached() and self._closed is None and self._failure is None:
            self._changed.clear()
            await self._changed.wait()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _last_words(self) -> StreamingError:
        """The reason of the connection's end: the server's `error`, if one is still unread."""
        assert self._closed is not None
        with suppress(StopAsyncIteration, StreamingError):
            while True:
                await anext(self)
        return self._failure or disconnected(self._closed)

    def _failed(self, error: StreamingError) -> StreamingError:
        """The session is over: wakes everything that waits."""
        self._failure = error
        self._changed.set()
        return error

    async def _close(self) -> None:
        """Leaves at once."""
        if self._failure is None:
            self._failed(LocalProtocolError("the connection was closed at the end of its `async with`: open a new one"))
        await self._dialer.close(self._websocket)

    def _lose(self, websocket: ClientConnection, closed: ConnectionClosed) -> bool:
        """Counts the session as lost and returns true if it can be resumed."""
        if websocket is not self._websocket:
            return True
        over = self._failure is not None or self._session.is_over
        if over or not self._resume or not self.ready.resume.token or not is_loss(closed):
            return False
        if not self._session.is_lost:
            self._session.lose()
            self._lost_at_s = time.monotonic()
            self._outbox.clear()
            self._changed.set()
        return True

    async def _run(self) -> None:
        """The task that `connect` runs: writes sent input, and replaces a lost connection."""
        try:
            while True:
                websocket = self._websocket
                async with asyncio.TaskGroup() as tasks:
                    writer = tasks.create_task(self._write(websocket), name="neucodec writer")
                    await websocket.wait_closed()
                    writer.cancel()
                closed = websocket.protocol.close_exc
                if not self._lose(websocket, closed):
                    self._closed = closed
                    self._changed.set()
                    return
                await self._reconnect()
        except StreamingError as error:
            self._failed(error)
        except Exception:
            _log.exception("the connection cannot go on")
            self._failed(StreamingError("internal error in the client: see its log"))

    async def _write(self, websocket: ClientConnection) -> None:
        with suppress(ConnectionClosed, StreamingError):
            while True:
                await self._until(lambda: bool(self._outbox))
                item = self._outbox.popleft()
                try:
                    async with asyncio.timeout(self._deadlines.send_s):
                        await websocket.send(encode_message(item))
                except TimeoutError:
                    seconds = f"{self._deadlines.send_s:g} s"
                    self._failed(
                        DeadlineExceeded(f"the server took no input for {seconds}: receive events while you send")
                    )
                if isinstance(item, bytes):
                    self._pending -= self._session.input.count(item)
                    self._changed.set()

    async def _reconnect(self) -> None:
        """Opens connections until the session continues or `resume_s` have passed. Raises the error that ends it."""
        received = self._session.output_position
        pause_s, met = FIRST_PAUSE_S, ""
        try:
            async with asyncio.timeout(self._deadlines.resume_s):
                while self._session.is_lost:
                    await asyncio.sleep(max(pause_s * random.uniform(0.5, 1.0), self._dialer.retry_after_s))
                    pause_s = min(2 * pause_s, MAX_PAUSE_S)
                    try:
                        target = self._session.resuming(self._request, replay=not self._live).target
                        self._websocket = await self._dialer.open(target, self._session)
                    except PASSING as error:
                        met = f": {error}"
                        self._session.lose()
                        if self._session.state is State.CLOSED:
                            raise
        except TimeoutError:
            raise Disconnected(
                f"the connection was lost and could not be restored within {self._deadlines.resume_s:g} s{met}"
            ) from None
        self._lost_at_s = None
        stream = self._session.input
        heard = self._session.heard_input
        unheard = max(0, self._session.input_position - heard)
        max_age = min(int(MAX_STALE_SECONDS * stream.rate), unheard) if self._live else None
        dropped = max(0, self._session.drop_stale(max_age) - heard)
        self._outbox.extend(self._session.unsent)
        self._pending = sum(stream.count(item) for item in self._outbox if isinstance(item, bytes))
        position = max(self._session.output_position, self._session.stale_until)
        gap = 0 if self.ready.resumed == "new" else position - received
        told = Resumed(self.ready.resumed, gap, position, dropped / stream.rate if self._live else 0.0)
        self._resumed = told if self._resumed is None else self._resumed.followed_by(told)
        self._changed.set()


@asynccontextmanager
async def connect(
    url: str = DEFAULT_URL,
    *,
    kind: str = "roundtrip",
    profile: str | None = None,
    voice: str | None = None,
    input_format: str = "s16le",
    output_format: str = "s16le",
    input_rate: int = INPUT_RATE,
    output_rate: int | None = None,
    stats: bool = False,
    api_key: str | None = None,
    ssl: tls.SSLContext | None = None,
    resume: bool = True,
    live: bool = False,
    raw: bool = False,
    deadlines: Deadlines | None = None,
) -> AsyncIterator[Connection]:
    """Opens a session with the server at `url` (`ws://`, `wss://`, `http://` or `https://`, with an optional path
    prefix).

    `kind`: "encode" (audio to tokens), "decode" (tokens to audio) or "roundtrip" (audio to audio). Formats and rates
    apply to its audio; the default `output_rate` is the model's. `voice` is a voice of the server to start decoding
    from. `api_key` is sent in a header, never in the URL. `ssl` verifies the certificate, None: by the system's
    authorities. A lost connection is replaced, which a Resumed event reports; with `resume=False` it raises
    Disconnected at once. `live` is for a microphone, whose audio is worthless when late: after a loss, input older than
    MAX_STALE_SECONDS is dropped, with the output of all earlier input; `Resumed` reports how much. With `raw`, Audio
    carries `data` (the bytes of the wire) and no `samples`.

    Raises ConfigError for options that the server does not offer, AuthError for a missing or unknown key, CapacityError
    if the server is full (LimitError: for this key or address), Unreachable if there is none.
    """
    deadlines = deadlines or Deadlines()
    request = session_request(
        kind,
        input_format=input_format,
        output_format=output_format,
        input_rate=input_rate,
        output_rate=output_rate,
        profile=profile,
        voice=voice,
        stats=stats,
    )
    dialer = Dialer(url, api_key, deadlines, ssl)
    session = ClientSession(request.input, request.output, has_model_rate=request.has_model_rate)
    websocket = await dialer.open(request.target, session)
    connection = Connection(dialer, request, session, websocket, deadlines, resume=resume, live=live, raw=raw)
    running = asyncio.create_task(connection._run(), name="neucodec connection")
    try:
        yield connection
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await connection._close()
