"""The servers of `benchmarks.wire`, each in its own process: ours over steps of constant time, with its own listener
and as an ASGI application, and a bare one.

A process is spawned, sends the server's URL, and ends when its parent closes the pipe between them or dies.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import uvicorn
from websockets.asyncio.server import ServerConnection, serve

from benchmarks.common.surroundings import ROOT
from neucodec_streaming.config import OUTPUT_HOP, StreamConfig
from neucodec_streaming.engine.engine import STAGES, Engine
from neucodec_streaming.engine.scheduler import Pool
from neucodec_streaming.engine.steps import StepRows
from neucodec_streaming.protocol.query import session_request
from neucodec_streaming.server.app import App
from neucodec_streaming.server.asgi import Application
from neucodec_streaming.server.cli import _loop_factory as loop_factory
from neucodec_streaming.server.model import Model, slots_each, worker_count
from neucodec_streaming.server.settings.fields import Settings
from neucodec_streaming.server.workers.worker import EngineLoader
from neucodec_streaming.windows import DecoderWindower, EncoderWindower, Window

CONFIG = StreamConfig(chunk_frames=5, lookahead_frames=5)
START_S = 120.0
"""Timeout for a server to be ready, including the real model's warm-up."""
STOP_S = 20.0

Serving = Callable[[], AbstractAsyncContextManager[str]]
"""Runs a server while its context is open; yields its URL."""


class ConstantRunner:
    """A runner without a model: a step takes `step_s` and returns zeros."""

    max_edges = None
    depth = 1

    def __init__(self, slots: int, batch_sizes: tuple[int, ...], step_s: float) -> None:
        self.slots, self.batch_sizes = slots, batch_sizes
        self.pools = [Pool(kind, CONFIG) for kind in STAGES["roundtrip"]]
        self._step_s = step_s
        frames = CONFIG.window_frames
        self._rows: dict[str, np.ndarray] = {
            "encode": np.zeros((batch_sizes[-1], frames), np.int64),
            "decode": np.zeros((batch_sizes[-1], frames * OUTPUT_HOP), np.float32),
        }

    def windower(self, pool: Pool) -> EncoderWindower | DecoderWindower:
        return EncoderWindower(pool.config) if pool.kind == "encode" else DecoderWindower(pool.config)

    def is_alive(self) -> bool:
        return True

    def launch(self, pool: Pool, slots: list[int], windows: list[Window], size: int) -> StepRows:
        time.sleep(self._step_s)  # yields the interpreter even for 0 s
        return StepRows(lambda: self._rows[pool.kind], len(windows))

    def reset(self, pool: Pool, slot: int) -> None:
        """Does nothing: there is no state."""


def load_constant(step_s: float, settings: Settings) -> tuple[list[Engine], Model]:
    """Returns the engines of these settings over constant steps."""
    engines = []
    workers = worker_count(settings)
    slots = slots_each(settings.max_sessions, workers)
    for _ in range(workers):
        runner: Any = ConstantRunner(slots, settings.batch_sizes, step_s)  # sessions are not moved
        engines.append(Engine(runner, settings.gather_ms / 1000, settings.max_behind_s))
    return engines, Model("constant", {"default": CONFIG}, "default")


@dataclass(frozen=True)
class Traffic:
    """Traffic of a connection of one kind: bytes of a 20 ms packet sent, and of the output of a frame received."""

    target: str
    packet_bytes: int
    frame_bytes: int

    @classmethod
    def of(cls, kind: str) -> "Traffic":
        request = session_request(kind)
        packet_bytes, frame_bytes = (stream.hop * stream.unit_bytes for stream in (request.input, request.output))
        return cls(request.target, packet_bytes, frame_bytes)


def _import_from_checkout() -> None:
    """Lets the worker import `load` from its module: its path lacks the working directory."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))


@asynccontextmanager
async def ours(settings: Settings, load: EngineLoader) -> AsyncIterator[str]:
    """Runs our server; yields its URL when it is ready."""
    _import_from_checkout()
    app = App(settings, load, apart=True)
    try:
        await app.start()
        await app.loaded()
        yield app.url
    finally:
        await app.stop()


@asynccontextmanager
async def asgi(settings: Settings, load: EngineLoader) -> AsyncIterator[str]:
    """Runs our server as an application of uvicorn; yields its URL when it is ready."""
    _import_from_checkout()
    application = Application(settings, load)
    server = uvicorn.Server(
        uvicorn.Config(application, port=0, lifespan="on", log_level="warning", ws_per_message_deflate=False)  # type: ignore[arg-type]
    )
    serving = asyncio.create_task(server.serve())
    while not server.started:
        if serving.done():
            raise SystemExit("uvicorn did not start")
        await asyncio.sleep(0.1)
    host, port = server.servers[0].sockets[0].getsockname()
    try:
        yield f"ws://{host}:{port}"
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def bare(traffic: Traffic) -> AsyncIterator[str]:
    """Runs a server that answers each chunk of packets with a message of the output's size, and text with text."""
    output = bytes(CONFIG.chunk_frames * traffic.frame_bytes)

    async def answer(socket: ServerConnection) -> None:
        packets = 0
        await socket.send("ready")
        async for message in socket:
            if isinstance(message, str):
                await socket.send("done")
                return
            packets += 1
            if packets % CONFIG.chunk_frames == 0:
                await socket.send(output)

    async with serve(answer, "127.0.0.1", 0, compression=None) as server:
        host, port = next(iter(server.sockets)).getsockname()
        yield f"ws://{host}:{port}"


def host(pipe: Connection, serving: Serving) -> None:
    """Runs a server in the event loop of `neucodec-server`: sends the URL, and ends when the pipe is closed."""

    async def run() -> None:
        loop, closed = asyncio.get_running_loop(), asyncio.Event()
        async with serving() as url:
            pipe.send(url)
            loop.add_reader(pipe.fileno(), closed.set)
            await closed.wait()
            loop.remove_reader(pipe.fileno())

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(run())


@dataclass(frozen=True)
class WireServer:
    """Address and process id of a server."""

    url: str
    pid: int


@contextmanager
def hosted(serving: Serving) -> Iterator[WireServer]:
    """Starts a server in its own process; yields it when ready. Raises SystemExit if it does not start."""
    processes = get_context("spawn")
    pipe, its = processes.Pipe()
    process = processes.Process(target=host, args=(its, serving))
    process.start()
    its.close()
    try:
        if not pipe.poll(START_S):
            raise SystemExit(f"the server was not ready after {START_S:.0f} s")
        try:
            url = pipe.recv()
        except EOFError:
            raise SystemExit("the server did not start: see its output above") from None
        assert process.pid is not None
        yield WireServer(url, process.pid)
    finally:
        pipe.close()
        process.join(STOP_S)
        process.kill()
