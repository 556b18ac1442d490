"""Runs a server with real sockets in a thread, and a small client that checks every message of the server."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import numpy as np
from websockets.asyncio.client import ClientConnection, connect

from neucodec_streaming.engine.engine import Engine
from neucodec_streaming.protocol.client_session import ClientSession
from neucodec_streaming.protocol.messages import (
    Done,
    End,
    Failure,
    Ready,
    ServerMessage,
    encode_message,
    parse_server_message,
)
from neucodec_streaming.protocol.query import parse_target
from neucodec_streaming.server.app import App
from neucodec_streaming.server.loading import load_engines
from neucodec_streaming.server.model import Model
from neucodec_streaming.server.settings.fields import Settings
from neucodec_streaming.server.workers.worker import EngineLoader
from tests.streaming.engine.fake import CONFIG, FakeRunner

GOLDEN = Path(__file__).parent.parent / "data" / "neucodec-mini"
DEADLINE_S = 30.0


class Host:
    """`runner` is the fake runner, if one was given."""

    def __init__(self, app: App, url: str, loop: asyncio.AbstractEventLoop, runner: FakeRunner | None) -> None:
        self.app, self.url, self.loop, self.runner = app, url, loop, runner

    async def emptied(self, down_to: int = 0) -> None:
        waiting = asyncio.run_coroutine_threadsafe(self.app.emptied(down_to), self.loop)
        await asyncio.wait_for(asyncio.wrap_future(waiting), DEADLINE_S)


@asynccontextmanager
async def own_listener(settings: Settings, load: EngineLoader) -> AsyncIterator[tuple[App, str]]:
    app = App(settings, load)
    try:
        await app.start()
        await app.loaded()
        yield app, app.url
    finally:
        await app.stop()


serving = own_listener
"""tests/server/asgi replaces it, to run the same tests over ASGI."""


@contextmanager
def hosted(runner: FakeRunner | None = None, **settings) -> Iterator[Host]:
    """Runs over the golden model unless a fake runner is given.

    By default it admits as many sessions as it has slots, however slow the machine is, drops a session when its
    connection is lost, and does not limit the message rate.
    """

    def load_fake(settings: Settings) -> tuple[list[Engine], Model]:
        rate = 50 * runner.output_hop
        engines = [Engine(runner, settings.gather_ms / 1000)]
        return engines, Model("fake", {"default": CONFIG}, "default", output_rate=rate)

    patient = {"max_load": 1e9, "max_behind_s": 1e9, "max_messages_per_s": 1e6}
    made = Settings(**{"model": str(GOLDEN), "port": 0, "threads": 1, "resume_s": 0} | patient | settings)
    up = threading.Event()
    found: dict = {}

    async def serve() -> None:
        found["loop"] = asyncio.get_running_loop()
        found["stop"] = asyncio.Event()
        async with serving(made, load_fake if runner is not None else load_engines) as found["app"]:
            up.set()
            await found["stop"].wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            found["error"] = error
            up.set()

    thread = threading.Thread(target=run, name="hosted server", daemon=True)
    thread.start()
    assert up.wait(120), "the server did not start"
    if "error" in found:
        raise found["error"]
    try:
        yield Host(*found["app"], found["loop"], runner)
    finally:
        found["loop"].call_soon_threadsafe(found["stop"].set)
        thread.join(30)
        assert not thread.is_alive(), "the server did not stop"
        if "error" in found:
            raise found["error"]


class Talk:
    """One session seen from the client; `seen` holds payload and messages in order."""

    def __init__(self, socket: ClientConnection, target: str) -> None:
        request = parse_target(target)
        assert request is not None
        self.socket = socket
        self.session = ClientSession(request.input, request.output, has_model_rate=request.has_model_rate)
        self.seen: list[bytes | ServerMessage] = []

    async def send(self, *items) -> None:
        for item in items:
            out = self.session.send_payload(item) if isinstance(item, bytes) else self.session.send(item)
            await self.socket.send(encode_message(out))

    async def hear(self) -> bytes | ServerMessage | None:
        event = self.session.receive(parse_server_message(await asyncio.wait_for(self.socket.recv(), DEADLINE_S)))
        if event is not None:
            self.seen.append(event)
        return event

    async def hear_until(self, *kinds: type) -> ServerMessage:
        while not isinstance(event := await self.hear(), kinds):
            pass
        return event

    async def finish(self) -> Done:
        await self.send(End())
        done = await self.hear_until(Done, Failure)
        assert isinstance(done, Done), done
        await asyncio.wait_for(self.socket.wait_closed(), DEADLINE_S)
        assert self.socket.close_code == 1000
        return done

    async def fail(self) -> Failure:
        """Receives up to the error that closes the connection."""
        failure = await self.hear_until(Failure)
        await asyncio.wait_for(self.socket.wait_closed(), DEADLINE_S)
        return failure

    @property
    def output(self) -> bytes:
        return b"".join(item for item in self.seen if isinstance(item, bytes))

    @property
    def tokens(self) -> np.ndarray:
        return np.frombuffer(self.output, "<u2")

    @property
    def messages(self) -> list[ServerMessage]:
        return [item for item in self.seen if not isinstance(item, (bytes, Ready))]


@asynccontextmanager
async def talk(url: str, target: str, **options) -> AsyncIterator[Talk]:
    async with connect(url + target, open_timeout=DEADLINE_S, max_size=None, **options) as socket:
        made = Talk(socket, target)
        ready = await made.hear()
        assert isinstance(ready, Ready), ready
        yield made


def s16(pcm: np.ndarray) -> bytes:
    return np.rint(pcm * 32768).clip(-32768, 32767).astype("<i2").tobytes()
