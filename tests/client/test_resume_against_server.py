"""The client and the real server over a faulty network: the output is as if no connection had been lost."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager

import numpy as np
import pytest

from benchmarks.common.faulty_proxy import Proxy, proxy
from neucodec_streaming.client.connection import Connection, connect
from neucodec_streaming.client.dial import Deadlines
from neucodec_streaming.client.events import Audio, Cleared, Done, Flushed, Marked, Resumed, Tokens
from neucodec_streaming.client.files import read_audio
from tests.server.hosting import hosted
from tests.streaming.engine.fake import FakeRunner, speech, tokens_of

SETTINGS = {"batch_sizes": (1,), "profiles": {"default": None}, "max_sessions": 2, "workers": 1, "resume_s": 30.0}
CUTS = 10
PACKETS = 7


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Makes reconnecting take milliseconds."""
    monkeypatch.setattr("neucodec_streaming.client.connection.FIRST_PAUSE_S", 0.01)


class Server:
    """Can be restarted at the same address."""

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
    return read_audio(data_folder.parent.parent / "demos" / "data" / "speech.flac", 16_000)[16_000:80_000]


class Listener:
    """`heard` is all output, `everything` output and answers."""

    def __init__(self) -> None:
        self.pieces: list[np.ndarray] = []
        self.everything: list[object] = []
        self.resumed: list[Resumed] = []
        self._changed = asyncio.Event()

    @property
    def heard(self) -> np.ndarray:
        return np.concatenate(self.pieces)

    @property
    def answers(self) -> int:
        return sum(isinstance(event, Flushed | Cleared) for event in self.everything)

    async def listen(self, connection: Connection) -> None:
        async for event in connection:
            self._changed.set()
            if isinstance(event, Resumed):
                self.resumed.append(event)
            elif isinstance(event, Audio | Tokens):
                piece = event.samples if isinstance(event, Audio) else event.tokens
                assert event.position >= sum(len(before) for before in self.pieces)
                self.pieces.append(piece)
                self.everything += piece.tolist()
            else:
                self.everything.append(event)

    async def until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self._changed.clear()
            await self._changed.wait()


@asynccontextmanager
async def behind_proxy() -> AsyncIterator[Proxy]:
    """A network that can fail, before a server without a model."""
    with hosted(FakeRunner(), resume_s=30.0) as host:
        address, port = host.url.removeprefix("ws://").split(":")
        async with asyncio.timeout(30), proxy(address, int(port)) as network:
            yield network


async def speak(url: str, kind: str, parts: list[np.ndarray], before: Callable[[], None] | None = None) -> Listener:
    """Says the parts as one utterance; `before` causes a loss in each, whose end is awaited."""
    listener = Listener()
    async with asyncio.timeout(30), connect(url, kind=kind) as connection:
        listening = asyncio.create_task(listener.listen(connection))
        for part in parts:
            losses = len(listener.resumed)
            if before is not None:
                before()
            for packet in np.array_split(part, PACKETS):
                await connection.send(packet)
            if before is not None:
                await listener.until(lambda losses=losses: len(listener.resumed) > losses)
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
async def test_a_sentence_continues_exactly_across_a_restart(server, sentence):
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


@pytest.mark.parametrize("seed", range(6))
async def test_utterances_arrive_exactly_once_through_random_resets_and_cuts(seed):
    chance, listener = random.Random(seed), Listener()
    said: list[np.ndarray] = []
    async with (
        behind_proxy() as network,
        connect(network.url, kind="encode", input_format="f32le") as connection,
    ):
        listening = asyncio.create_task(listener.listen(connection))
        for number in range(1, 13):
            levels = [chance.randrange(1, 200) for _ in range(chance.randrange(1, 30))]
            for packet in np.array_split(speech(*levels), chance.randrange(1, 6)):
                await connection.send(packet)
                chance.choice([network.reset, network.cut, *[lambda: None] * 5])()
            await connection.mark(number)
            await chance.choice([connection.flush, connection.flush, connection.clear])()
            said.append(tokens_of(levels))
            await listener.until(lambda number=number: listener.answers == number)
        await connection.end()
        await listening
    heard = iter(listener.everything)
    for tokens in said:
        utterance = list(itertools.takewhile(lambda event: not isinstance(event, Marked), heard))
        answer = next(heard)
        if isinstance(answer, Flushed):
            assert utterance == tokens.tolist()
        else:
            assert isinstance(answer, Cleared)
            assert utterance == tokens.tolist()[: len(utterance)]
    assert isinstance(next(heard), Done)
    assert {(event.how, event.gap) for event in listener.resumed} == {("exact", 0)}


async def test_pings_detect_a_dead_network_and_the_client_reconnects():
    levels, listener = list(range(1, 41)), Listener()
    async with (
        behind_proxy() as network,
        connect(network.url, kind="encode", deadlines=Deadlines(alive_s=0.1, close_s=0.1)) as connection,
    ):
        listening = asyncio.create_task(listener.listen(connection))
        await connection.send(speech(*levels[:20]))
        await listener.until(lambda: listener.everything)
        network.half_open()
        await connection.send(speech(*levels[20:]))
        await listener.until(lambda: listener.resumed)
        await connection.end()
        await listening
    assert [(event.how, event.gap) for event in listener.resumed] == [("exact", 0)]
    assert listener.heard.tolist() == tokens_of(levels).tolist()


async def test_the_client_waits_for_a_temporarily_unreachable_server():
    levels, listener = list(range(1, 41)), Listener()
    async with behind_proxy() as network, connect(network.url, kind="encode") as connection:
        listening = asyncio.create_task(listener.listen(connection))
        network.down()
        network.reset()
        for level in levels:
            await connection.send(speech(level))
        await network.up()
        await connection.end()
        await listening
    assert [(event.how, event.gap) for event in listener.resumed] == [("exact", 0)]
    assert listener.heard.tolist() == tokens_of(levels).tolist()
