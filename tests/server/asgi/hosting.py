"""ASGI servers for `tests.server.hosting.hosted`: uvicorn with the codec mounted in FastAPI, hypercorn with it alone.

A module of this folder imports the tests of another, and `over_asgi` (both servers), `over_uvicorn` or
`over_hypercorn`.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import hypercorn.asyncio
import hypercorn.config
import pytest
import uvicorn
from fastapi import FastAPI

from neucodec_streaming.server.app import App
from neucodec_streaming.server.asgi import Application
from neucodec_streaming.server.settings.fields import Settings
from neucodec_streaming.server.workers.worker import EngineLoader
from tests.server import hosting
from tests.server.test_app import get

PREFIX = "/a codec"


@asynccontextmanager
async def uvicorn_server(app: object, *, lifespan: str = "on", **options) -> AsyncIterator[str]:
    config = uvicorn.Config(app, port=0, lifespan=lifespan, log_level="warning", **options)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    try:
        while not server.started:
            assert not running.done(), "uvicorn did not start"
            await asyncio.sleep(0.01)
        host, port = server.servers[0].sockets[0].getsockname()
        yield f"ws://{host}:{port}"
    finally:
        server.should_exit = True
        await running


@asynccontextmanager
async def hypercorn_server(app: object) -> AsyncIterator[str]:
    listening = socket.create_server(("127.0.0.1", 0))
    host, port = listening.getsockname()
    config, stop = hypercorn.config.Config(), asyncio.Event()
    config.bind, config.loglevel, config.graceful_timeout = [f"fd://{listening.detach()}"], "WARNING", 1.0
    running = asyncio.create_task(hypercorn.asyncio.serve(app, config, shutdown_trigger=stop.wait))  # type: ignore[arg-type]
    try:
        yield f"ws://{host}:{port}"
    finally:
        stop.set()
        await running


@asynccontextmanager
async def mounted_in_fastapi(settings: Settings, load: EngineLoader) -> AsyncIterator[tuple[App, str]]:
    codec = Application(settings, load, apart=False)
    app = FastAPI(lifespan=codec.lifespan)
    app.mount(PREFIX, codec)
    async with uvicorn_server(app) as url:
        yield codec.app, url + PREFIX.replace(" ", "%20")


@asynccontextmanager
async def alone_in_hypercorn(settings: Settings, load: EngineLoader) -> AsyncIterator[tuple[App, str]]:
    codec = Application(settings, load, apart=False)
    async with hypercorn_server(codec) as url:
        while (await asyncio.to_thread(get, url + "/readyz"))[0] != 200:
            pass  # hypercorn listens before the lifespan startup is complete
        yield codec.app, url


SERVERS = {"uvicorn": mounted_in_fastapi, "hypercorn": alone_in_hypercorn}


@contextmanager
def _serving_over(name: str) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hosting, "serving", SERVERS[name])
        yield name


@pytest.fixture(scope="module", autouse=True, params=SERVERS)
def over_asgi(request: pytest.FixtureRequest) -> Iterator[str]:
    with _serving_over(request.param) as name:
        yield name


@pytest.fixture(scope="module", autouse=True)
def over_uvicorn() -> Iterator[str]:
    with _serving_over("uvicorn") as name:
        yield name


@pytest.fixture(scope="module", autouse=True)
def over_hypercorn() -> Iterator[str]:
    """Serves the codec at the root."""
    with _serving_over("hypercorn") as name:
        yield name
