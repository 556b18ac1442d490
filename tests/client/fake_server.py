"""A server of `neucodec.v1` without a model: the protocol is the real one, the codec is arithmetic.

A token is the first sample of its 320 (as s16le, read as uint16); a token becomes 480 samples of its own value. Output
comes a chunk of 5 frames at a time. `Fault` makes it misbehave. With `resume` it keeps a session whose connection is
lost, until `forget`, or for as long as it `knows_resume`; `drop` loses all connections.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from enum import Enum, auto
from http import HTTPStatus

import numpy as np
from websockets.asyncio.server import Request, Response, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from neucodec_streaming.config import INPUT_HOP, OUTPUT_HOP
from neucodec_streaming.errors import AudioError, StreamingError
from neucodec_streaming.protocol.messages import (
    Clear,
    End,
    Failure,
    Flush,
    Prime,
    Ready,
    Resume,
    Stats,
    encode_message,
    parse_client_message,
)
from neucodec_streaming.protocol.query import SessionRequest, parse_target
from neucodec_streaming.protocol.session import ServerSession

CHUNK_FRAMES = 5


class Fault(Enum):
    NONE = auto()
    FULL = auto()
    PROXY = auto()
    PROXY_LIMIT = auto()
    PROXY_LOGIN = auto()
    NEEDS_KEY = auto()
    UNKNOWN_PATH = auto()
    NO_READY = auto()
    NOT_A_READY = auto()
    VANISH = auto()
    REFUSE_INPUT = auto()
    NEVER_DONE = auto()
    MUTE = auto()
    NEVER_READ = auto()
    UNKNOWN_MESSAGES = auto()


class FakeServer:
    def __init__(self, fault: Fault, resume: bool) -> None:
        self.fault = fault
        self.knows_resume = resume
        self._kept: dict[str, tuple[ServerSession, _Coder]] = {}
        self._sockets: set[ServerConnection] = set()
        self.url = ""
        self.requests: list[Request] = []
        self.open_sessions = 0
        self.all_sessions = 0
        self.heard_units = 0
        self.model = "fake"
        self.primes: list[Prime] = []
        self.kinds: tuple[str, ...] = ("encode", "decode", "roundtrip")
        self.emptied = asyncio.Event()
        self.heard = asyncio.Event()
        self._arrived = asyncio.Event()
        self.stopping = asyncio.Event()
        self.reads = asyncio.Event()
        """Nothing is read while it is not set."""
        self.reads.set()
        self.miscounts = 0
        """Units of input missing from the count in `cleared`."""

    def refuse(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        self._arrived.set()
        if self.fault is Fault.FULL:
            return _refusal(connection, HTTPStatus.SERVICE_UNAVAILABLE, Failure("full", "all 4 sessions are taken"))
        if self.fault is Fault.NEEDS_KEY:
            return _refusal(connection, HTTPStatus.UNAUTHORIZED, Failure("unauthorized", "send a header"))
        if self.fault is Fault.PROXY:
            return connection.respond(HTTPStatus.BAD_GATEWAY, "no upstream\n")
        if self.fault is Fault.PROXY_LIMIT:
            return connection.respond(HTTPStatus.TOO_MANY_REQUESTS, "slow down\n")
        if self.fault is Fault.PROXY_LOGIN:
            return connection.respond(HTTPStatus.UNAUTHORIZED, "log in first\n")
        asked = parse_target(request.path)
        if self.fault is Fault.UNKNOWN_PATH or asked is None or asked.kind not in self.kinds:
            return _refusal(connection, HTTPStatus.NOT_FOUND, Failure("bad_path", "path '/elsewhere' is unknown"))
        return None

    def drop(self) -> None:
        for websocket in self._sockets:
            websocket.transport.abort()

    async def close_all(self, code: int) -> None:
        await asyncio.gather(*(websocket.close(code) for websocket in set(self._sockets)))

    def forget(self) -> None:
        """Acts like a restart."""
        self._kept.clear()

    async def asked(self, times: int) -> None:
        async with asyncio.timeout(5):
            while len(self.requests) < times:
                self._arrived.clear()
                await self._arrived.wait()

    async def serve(self, websocket: ServerConnection) -> None:
        self.open_sessions += 1
        self.all_sessions += 1
        self._sockets.add(websocket)
        try:
            assert websocket.request is not None
            request = parse_target(websocket.request.path)
            assert request is not None
            with suppress(ConnectionClosed):
                await self._converse(websocket, request)
        finally:
            self._sockets.discard(websocket)
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
        session, coder = self._session(request)
        await _drain(websocket, session)
        if self.fault is Fault.NEVER_READ:
            await self.stopping.wait()
            websocket.transport.abort()
            return
        if self.fault is Fault.UNKNOWN_MESSAGES:
            await websocket.send('{"type":"weather","fine":true}')
        async for data in websocket:
            self.heard.set()
            await self.reads.wait()
            if self.fault is Fault.VANISH:
                websocket.transport.abort()
                return
            try:
                asked = parse_client_message(data)
                session.receive(asked)
                if self.fault is Fault.REFUSE_INPUT:
                    raise AudioError("sample 7 is nan: audio must be finite")
            except StreamingError as error:
                session.fail(error)
                await _drain(websocket, session)
                await websocket.close(session.close_code)
                return
            if isinstance(asked, Prime):
                self.primes.append(asked)
            elif isinstance(asked, bytes):
                self.heard_units += session.input.count(asked)
                session.output_ready(coder.feed(asked), session.epoch)
            elif isinstance(asked, Clear):
                coder.clear()
                session.input_position -= self.miscounts
                session._outbox[-1] = replace(session._outbox[-1], input=session.input_position)
            elif isinstance(asked, Flush | End) and self.fault is not Fault.NEVER_DONE:
                session.output_ready(coder.flush(), session.epoch)
                session.flush_finished(session.epoch)
            if self.fault is Fault.MUTE:
                continue
            if request.stats:
                session.report(Stats(buffered_ms=0.0, behind_ms=0.0))
            await _drain(websocket, session)
            if session.is_over:
                await websocket.close(session.close_code)

    def _session(self, request: SessionRequest) -> tuple[ServerSession, "_Coder"]:
        """The session is kept, recomputed or new."""
        token = f"token {self.all_sessions}"
        profile = request.profile or "default"
        ready = Ready(token, self.model, profile, CHUNK_FRAMES, 5, 215.0, request.input, request.output)
        if self.knows_resume:
            ready = replace(ready, resume=Resume(token, 30.0))
        session, coder = ServerSession(ready, max_replay_bytes=1 << 20), _Coder(request.kind)
        if not self.knows_resume:
            return session, coder
        if request.resume in self._kept:
            session, coder = self._kept[request.resume]
            session.lose()
            assert session.can_resume(request.received, request.answers)
            ready = replace(ready, session=request.resume, resumed="exact", resume=Resume(request.resume, 30.0))
            session.resume(ready, request.received, request.answers)
            return session, coder
        if begun := request.utterance or request.tail:
            ready = replace(ready, resumed="approximate", input_position=begun.input)
            ready = replace(ready, output_position=max(begun.output, request.received))
            session = ServerSession(ready, computed_from=begun.output, max_replay_bytes=1 << 20)
        self._kept[token] = session, coder
        return session, coder


def _refusal(connection: ServerConnection, status: HTTPStatus, failure: Failure) -> Response:
    response = connection.respond(status, encode_message(failure) + "\n")
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = "3"
    return response


async def _drain(websocket: ServerConnection, session: ServerSession) -> None:
    while (message := session.next_message()) is not None:
        if message != b"":
            await websocket.send(encode_message(message))


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
async def fake_server(fault: Fault = Fault.NONE, resume: bool = False) -> AsyncIterator[FakeServer]:
    fake = FakeServer(fault, resume)
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
            fake.reads.set()
