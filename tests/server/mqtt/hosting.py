"""Runs a server with a bridge in the test's own event loop, over the fake runner or the golden model."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from neucodec_streaming.config import OUTPUT_RATE
from neucodec_streaming.engine.engine import Engine
from neucodec_streaming.protocol.mqtt.address import BrokerAddress, parse_broker
from neucodec_streaming.server.app import App
from neucodec_streaming.server.loading import load_engines
from neucodec_streaming.server.model import Model
from neucodec_streaming.server.mqtt.bridge import Bridge
from neucodec_streaming.server.settings.fields import Settings
from tests.server.hosting import GOLDEN
from tests.streaming.engine.fake import CONFIG, FakeRunner

DEADLINE_S = 15.0


class BridgeHost:
    def __init__(self, app: App, bridge: Bridge, runner: FakeRunner | None) -> None:
        self.app, self.bridge, self.runner = app, bridge, runner

    async def die(self) -> None:
        """Closes connections as the death of a process does: all at once, without a closing message."""
        connections = [self.bridge._connection, *(session._connection for session, _ in self.bridge._sessions.values())]
        tasks = [self.bridge._task, *(task for _, task in self.bridge._sessions.values())]
        for connection in connections:
            found = None if connection is None else connection._client._client.socket()
            if isinstance(found, socket.socket):
                found.shutdown(socket.SHUT_RDWR)
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in tasks if task is not None), return_exceptions=True)


@asynccontextmanager
async def bridged(
    url: str | BrokerAddress, runner: FakeRunner | None = None, sites=(), output_rate=OUTPUT_RATE, **settings
) -> AsyncIterator[BridgeHost]:
    def load_fake(settings: Settings) -> tuple[list[Engine], Model]:
        model = Model("fake", {"default": CONFIG}, "default", output_rate=output_rate)
        return [Engine(runner, settings.gather_ms / 1000)], model

    made = Settings(**{"model": str(GOLDEN), "port": 0, "threads": 1, "max_load": 1e9, "web": False} | settings)
    app = App(made, load_fake if runner is not None else load_engines)
    bridge = Bridge(parse_broker(url) if isinstance(url, str) else url, app.open, sites)
    try:
        await app.start()
        await app.loaded()
        bridge.start()
        await asyncio.wait_for(bridge.connected.wait(), DEADLINE_S)
        yield BridgeHost(app, bridge, runner)
    finally:
        await bridge.stop(5.0)
        await app.stop()
