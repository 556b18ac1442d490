"""The client and the real server through a network that cuts: what comes out is as if nothing had been."""

import asyncio
import random
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
import pytest

from client.connection import Connection, connect
from client.events import Audio, Resumed, Tokens
from client.files import read_audio
from tests.proxy import proxy
from tests.server.hosting import hosted

SETTINGS = {"batch_sizes": (1,), "profiles": {"default": None}, "max_sessions": 2, "workers": 1, "resume_s": 30.0}
CUTS = 10
PACKETS = 7


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Reconnecting takes milliseconds."""
    monkeypatch.setattr("client.connection.FIRST_PAUSE_S", 0.01)


class Server:
    """A server that can be started anew where it was."""

    def __init__(self) -> None:
        self._running = ExitStack()
        self.url = self._running.enter_context(hosted(**SETTINGS)).url
        self.host, port = self.url.removeprefix("ws://").split(":")
        self.port = int(port)

    def stop(self) -> None:
        self._running.close()

    def start(self) -> None:
        self._running.enter_context(hosted(**SETTINGS, port=self.port))


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def sentence(data_folder):
    """Four seconds of real speech."""
    return read_audio(data_folder.parent.parent / "demos" / "data" / "speech.flac", 16_000)[16_000:80_000]


class Listener:
    """Hears a connection out beside its user; `heard` is all output."""

    def __init__(self) -> None:
        self.pieces: list[np.ndarray] = []
        self.resumed: list[Resumed] = []
        self._changed = asyncio.Event()

    @property
    def heard(self) -> np.ndarray:
        return np.concatenate(self.pieces)

    async def listen(self, connection: Connection) -> None:
        async for event in connection:
            if isinstance(event, Resumed):
                self.resumed.append(event)
                self._changed.set()
            elif isinstance(event, Audio | Tokens):
                piece = event.samples if isinstance(event, Audio) else event.tokens
                assert event.position == sum(len(before) for before in self.pieces)
                self.pieces.append(piece)

    async def was_lost(self, times: int) -> None:
        while len(self.resumed) < times:
            self._changed.clear()
            await self._changed.wait()


async def speak(url: str, kind: str, parts: list[np.ndarray], before: Callable[[], None] | None = None) -> Listener:
    """Says the parts as one utterance; after each, when there is something to do `before` it, waits for a loss."""
    listener = Listener()
    async with asyncio.timeout(30), connect(url, kind=kind) as connection:
        listening = asyncio.create_task(listener.listen(connection))
        for number, part in enumerate(parts, 1):
            if before is not None:
                before()
            for packet in np.array_split(part, PACKETS):
                await connection.send(packet)
            if before is not None:
                await listener.was_lost(number)
        await connection.end()
        await listening
    return listener


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["encode", "decode", "roundtrip"])
async def test_a_connection_cut_ten_times_during_a_sentence_changes_no_byte(server, sentence, kind):
    units = np.random.default_rng(0).integers(0, 65_536, 200).astype(np.uint16) if kind == "decode" else sentence
    parts = np.array_split(units, CUTS)
    uncut = await speak(server.url, kind, parts)
    cuts = random.Random(kind)
    async with proxy(server.host, server.port) as network:
        ways = [
            (network.to_server, parts[0].size // 2),
            (network.to_client, uncut.heard.nbytes // CUTS // 4),
        ]

        def cut_at_some_byte():
            way, most_bytes = cuts.choice(ways)
            way.cut_after_bytes(cuts.randrange(1, most_bytes))

        cut = await speak(network.url, kind, parts, cut_at_some_byte)
    assert [(event.how, event.gap) for event in cut.resumed] == [("exact", 0)] * CUTS
    assert cut.heard.tobytes() == uncut.heard.tobytes()


@pytest.mark.slow
async def test_across_a_restart_the_sentence_goes_on_and_ready_says_exact(server, sentence):
    whole = await speak(server.url, "encode", [sentence])
    first, second = np.array_split(sentence, 2)
    listener = Listener()
    async with asyncio.timeout(60), connect(server.url, kind="encode") as connection:
        listening = asyncio.create_task(listener.listen(connection))
        await connection.send(first)
        await asyncio.to_thread(server.stop)
        await connection.send(second)
        await connection.end()
        await asyncio.to_thread(server.start)
        await listening
    assert [(event.how, event.gap) for event in listener.resumed] == [("exact", 0)]
    assert listener.heard.tobytes() == whole.heard.tobytes()
