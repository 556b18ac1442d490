"""A server of `neucodec.v1` without a model: the protocol is the real one, the codec is arithmetic.

A token is the first sample of its 320 (as s16le, read as uint16); a token becomes 480 samples of its own value. Output
comes a chunk of 5 frames at a time. `Fault` makes it misbehave.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum, auto
from http import HTTPStatus

import numpy as np
from websockets.asyncio.server import Request, Response, ServerConnection, serve
from websockets.typing import Subprotocol

from streaming.config import INPUT_HOP, OUTPUT_HOP
from streaming.errors import AudioError, StreamingError
from streaming.protocol.messages import Clear, End, Failure, Flush, Ready, Stats, encode_message
from streaming.protocol.query import SessionRequest, parse_target
from streaming.protocol.session import ServerSession, State

CHUNK_FRAMES = 5


class Fault(Enum):
    """How the server misbehaves."""

    NONE = auto()
    FULL = auto()
    PROXY = auto()
    PROXY_LIMIT = auto()
    PROXY_LOGIN = auto()
    NO_READY = auto()
    NOT_A_READY = auto()
    VANISH = auto()
    REFUSE_INPUT = auto()
    NEVER_DONE = auto()
    NEVER_READ = auto()
    UNKNOWN_MESSAGES = auto()


class FakeServer:
    """What the tests look at: url, the requests, the sessions that are open now, and how many there were."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.url = ""
        self.requests: list[Request] = []
        self.open_sessions = 0
        self.all_sessions = 0
        self.emptied = asyncio.Event()
        self.stopping = asyncio.Event()

    def refuse(self, connection: ServerConnection, request: Request) -> Response | None:
        """HTTP answers before the upgrade."""
        self.requests.append(request)
        if self.fault is Fault.FULL:
            return _refusal(connection, HTTPStatus.SERVICE_UNAVAILABLE, Failure("full", "all 4 sessions are taken"))
        if self.fault is Fault.PROXY:
            return connection.respond(HTTPStatus.BAD_GATEWAY, "no upstream\n")
        if self.fault is Fault.PROXY_LIMIT:
            return connection.respond(HTTPStatus.TOO_MANY_REQUESTS, "slow down\n")
        if self.fault is Fault.PROXY_LOGIN:
            return connection.respond(HTTPStatus.UNAUTHORIZED, "log in first\n")
        if parse_target(request.path) is None:
            return _refusal(connection, HTTPStatus.NOT_FOUND, Failure("bad_path", "path '/elsewhere' is unknown"))
        return None

    async def serve(self, websocket: ServerConnection) -> None:
        """One session."""
        self.open_sessions += 1
        self.all_sessions += 1
        try:
            assert websocket.request is not None
            request = parse_target(websocket.request.path)
            assert request is not None
            await self._converse(websocket, request)
        finally:
            self.open_sessions -= 1
            if not self.open_sessions:
                self.emptied.set()

    async def _converse(self, websocket: ServerConnection, request: SessionRequest) -> None:
        if self.fault is Fault.NO_READY:
            await websocket.wait_closed()
            return
        if self.fault is Fault.NOT_A_READY:
            await websocket.send('{"type":"flushed"}')
            await websocket.wait_closed()
            return
        profile = request.profile or "default"
        session = ServerSession(Ready("s1", "fake", profile, CHUNK_FRAMES, 5, 215.0, request.input, request.output))
        await _drain(websocket, session)
        if self.fault is Fault.NEVER_READ:
            await self.stopping.wait()
            websocket.transport.abort()
            return
        if self.fault is Fault.UNKNOWN_MESSAGES:
            await websocket.send('{"type":"weather","fine":true}')
        coder = _Coder(request.kind)
        async for data in websocket:
            if self.fault is Fault.VANISH:
                websocket.transport.abort()
                return
            try:
                asked = session.receive(data)
                if self.fault is Fault.REFUSE_INPUT:
                    raise AudioError("sample 7 is nan: audio must be finite")
            except StreamingError as error:
                session.fail(error)
                await _drain(websocket, session)
                await websocket.close(session.close_code)
                return
            if isinstance(asked, bytes):
                session.output_ready(coder.feed(asked), session.epoch)
            elif isinstance(asked, Clear):
                coder.clear()
            elif isinstance(asked, Flush | End) and self.fault is not Fault.NEVER_DONE:
                session.output_ready(coder.flush(), session.epoch)
                session.flush_finished(session.epoch)
            if request.stats:
                session.report(Stats(buffered_ms=0.0, behind_ms=0.0))
            await _drain(websocket, session)
            if session.state is State.CLOSED:
                await websocket.close(session.close_code)


def _refusal(connection: ServerConnection, status: HTTPStatus, failure: Failure) -> Response:
    response = connection.respond(status, encode_message(failure) + "\n")
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = "3"
    return response


async def _drain(websocket: ServerConnection, session: ServerSession) -> None:
    while (message := session.next_message()) is not None:
        if message != b"":
            await websocket.send(message)


class _Coder:
    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._units = np.zeros(0, "<u2")

    def feed(self, payload: bytes) -> bytes:
        self._units = np.concatenate([self._units, np.frombuffer(payload, "<u2")])
        hop = 1 if self._kind == "decode" else INPUT_HOP
        frames = len(self._units) // hop // CHUNK_FRAMES * CHUNK_FRAMES
        return self._out(frames, hop)

    def flush(self) -> bytes:
        hop = 1 if self._kind == "decode" else INPUT_HOP
        output = self._out(len(self._units) // hop, hop)
        self.clear()
        return output

    def clear(self) -> None:
        self._units = np.zeros(0, "<u2")

    def _out(self, frames: int, hop: int) -> bytes:
        tokens = self._units[: frames * hop : hop]
        self._units = self._units[frames * hop :]
        return (tokens if self._kind == "encode" else np.repeat(tokens, OUTPUT_HOP)).astype("<u2").tobytes()


@asynccontextmanager
async def fake_server(fault: Fault = Fault.NONE) -> AsyncIterator[FakeServer]:
    """A fake server on a free port of the loopback."""
    fake = FakeServer(fault)
    async with serve(
        fake.serve,
        "127.0.0.1",
        0,
        process_request=fake.refuse,
        subprotocols=[Subprotocol("neucodec.v1")],
        compression=None,
        close_timeout=0.1,
    ) as server:
        host, port = next(iter(server.sockets)).getsockname()[:2]
        fake.url = f"ws://{host}:{port}"
        try:
            yield fake
        finally:
            fake.stopping.set()
