"""Random conversations with a real server: positions and totals are exact for any order of requests."""

import asyncio
import random

import numpy as np
import pytest

from neucodec_streaming.protocol.messages import Clear, Cleared, End, Flush, Flushed, Mark, Marked, encode_message
from tests.server.hosting import Talk, hosted, s16, talk
from tests.streaming.engine.fake import FakeRunner, audio_of, speech, tokens_of


@pytest.fixture(scope="module")
def host():
    with hosted(FakeRunner(slots=6), max_sessions=6) as running:
        yield running


class Script:
    """Tracks the expected output of every stretch between clears."""

    def __init__(self, kind: str, rng: random.Random) -> None:
        self.kind, self.rng = kind, rng
        self.expected: list[np.ndarray] = [np.zeros(0, np.uint16)]
        self.flushes = self.clears = self.marks = 0
        self.levels: list[int] = []

    def end_utterance(self) -> None:
        self.expected[-1] = np.concatenate([self.expected[-1], tokens_of(self.levels)])
        self.levels = []

    async def play(self, client: Talk) -> None:
        for _ in range(40):
            action = self.rng.choice(["say"] * 6 + ["flush", "clear", "mark", "mark"])
            if action == "say":
                levels = [self.rng.randrange(128) for _ in range(self.rng.randrange(12))]
                before = tokens_of(self.levels + levels)[len(self.levels) :]
                await client.send(before.tobytes() if self.kind == "decode" else s16(speech(*levels)))
                self.levels += levels
            elif action == "flush":
                await client.send(Flush())
                self.flushes += 1
                self.end_utterance()
            elif action == "clear":
                await client.send(Clear())
                self.clears += 1
                self.end_utterance()
                self.expected.append(np.zeros(0, np.uint16))
            else:
                await client.send(Mark(self.marks))
                self.marks += 1
        self.end_utterance()

    def check(self, client: Talk) -> None:
        stretches = [b""]
        for item in client.seen:
            if isinstance(item, Cleared):
                stretches.append(b"")
            elif isinstance(item, bytes):
                stretches[-1] += item
        wanted = [part.tobytes() if self.kind == "encode" else s16(audio_of(part)) for part in self.expected]
        assert len(stretches) == len(wanted)
        assert all(whole.startswith(got) for got, whole in zip(stretches, wanted, strict=True))
        assert stretches[-1] == wanted[-1], "what is not cleared is complete"
        assert [item.id for item in client.seen if isinstance(item, Marked)] == list(range(self.marks))
        assert sum(isinstance(item, Flushed) for item in client.seen) <= self.flushes


@pytest.mark.parametrize("seed", range(6))
async def test_every_stretch_between_clears_is_exact_and_every_mark_returns_once_in_order(host, seed):
    async def one(number: int) -> None:
        rng = random.Random(seed * 10 + number)
        kind = ("encode", "decode", "roundtrip")[number % 3]
        script = Script(kind, rng)
        async with talk(host.url, f"/v1/{kind}") as client:

            async def listen() -> None:
                while not client.session.is_over:
                    await client.hear()

            listening = asyncio.create_task(listen())
            await script.play(client)
            await client.socket.send(encode_message(client.session.send(End())))
            await listening
            script.check(client)

    await asyncio.gather(*(one(number) for number in range(6)))
    await host.emptied()
