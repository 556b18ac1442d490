"""Sessions that lose their connection, over real sockets and a real model: the output is as if none had been lost."""

import asyncio
import gc
import random
from dataclasses import replace

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from neucodec_streaming.protocol.client_session import ClientSession
from neucodec_streaming.protocol.messages import (
    Clear,
    Cleared,
    Done,
    End,
    Flush,
    Flushed,
    Mark,
    Marked,
    Ready,
    encode_message,
    parse_server_message,
)
from neucodec_streaming.protocol.query import SessionRequest, parse_target
from neucodec_streaming.server.auth.keys import key_line, new_key
from neucodec_streaming.server.http.websocket import WebSocket
from neucodec_streaming.server.sessions.session import Session
from tests.server.hosting import DEADLINE_S, hosted, s16, talk
from tests.streaming.engine.fake import FakeRunner, speech, tokens_of

LEVELS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6]
PINNED = {"batch_sizes": (1,), "max_sessions": 2, "workers": 1, "profiles": {"default": None}, "resume_s": 30.0}
LIVES_ON = {"resume_s": 30.0, "close_timeout_s": 0.2}


class Caller:
    """Reconnects; `heard` is its payload in order, `events` its other messages."""

    def __init__(self, target: str, **options) -> None:
        request = parse_target(target)
        assert request is not None
        self.request: SessionRequest = request
        self.options = options
        self.session = ClientSession(request.input, request.output)
        self.heard = b""
        self.events: list = []
        self.readies: list[Ready] = []
        self.socket: ClientConnection | None = None

    async def call(self, url: str) -> Ready:
        """Sends the input that the server lacks."""
        request = self.request if self.session.ready is None else self.session.resuming(self.request)
        self.socket = await connect(url + request.target, open_timeout=DEADLINE_S, max_size=None, **self.options)
        assert isinstance(await self.hear(), Ready)
        for item in self.session.unsent:
            await self.socket.send(encode_message(item))
        return self.readies[-1]

    async def say(self, *items) -> None:
        for item in items:
            out = self.session.send_payload(item) if isinstance(item, bytes) else self.session.send(item)
            await self.socket.send(encode_message(out))

    async def hear(self) -> object:
        event = self.session.receive(parse_server_message(await asyncio.wait_for(self.socket.recv(), DEADLINE_S)))
        if isinstance(event, bytes):
            self.heard += event
        elif isinstance(event, Ready):
            self.readies.append(event)
        else:
            self.events.append(event)
        return event

    async def hear_until(self, kind: type) -> object:
        while not isinstance(event := await self.hear(), kind):
            pass
        return event

    def lose(self) -> None:
        """Also loses everything in flight."""
        self.socket.transport.abort()
        self.session.lose()

    async def finish(self) -> Done:
        await self.say(End())
        done = await self.hear_until(Done)
        await asyncio.wait_for(self.socket.wait_closed(), DEADLINE_S)
        return done


async def uncut(url: str, target: str, packets: list[bytes]) -> bytes:
    async with talk(url, target) as session:
        await session.send(*packets)
        await session.finish()
        return session.output


def packets_of(data: bytes, rng: random.Random, unit: int) -> list[bytes]:
    cuts = sorted(rng.sample(range(1, len(data) // unit), 24))
    return [data[a * unit : b * unit] for a, b in zip([0, *cuts], [*cuts, len(data) // unit], strict=True)]


@pytest.fixture(scope="module")
def pinned():
    with hosted(**PINNED) as host:
        yield host


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "unit"),
    [
        ("/v1/encode", 2),
        ("/v1/decode", 2),
        ("/v1/roundtrip", 2),
        ("/v1/roundtrip?input_format=mulaw&input_rate=8000&output_format=f32le&output_rate=44100", 1),
    ],
)
async def test_ten_cuts_in_a_sentence_change_no_bit(pinned, target, unit):
    rng = random.Random(target)
    packets = packets_of(rng.randbytes(32_000 if unit == 2 else 12_000), rng, unit)
    if "decode" in target:
        packets = packets_of(rng.randbytes(400), rng, unit)
    expected = await uncut(pinned.url, target, packets)
    caller = Caller(target)
    await caller.call(pinned.url)
    cuts = set(rng.sample(range(len(packets)), 10))
    for number, packet in enumerate(packets):
        await caller.say(packet)
        if number in cuts:
            for _ in range(rng.randrange(2)):
                if caller.session.input_position > 16000:
                    await caller.hear()
            caller.lose()
            ready = await caller.call(pinned.url)
            assert ready.resumed == "exact" and ready.session == caller.readies[0].session
    done = await caller.finish()
    assert caller.heard == expected
    assert done.output == caller.session.output_position
    await pinned.emptied()


@pytest.mark.slow
async def test_a_pinned_server_recomputes_the_same_bits_after_a_restart(pinned):
    rng = random.Random(5)
    packets = packets_of(rng.randbytes(48_000), rng, 2)
    expected = await uncut(pinned.url, "/v1/encode", packets)
    caller = Caller("/v1/encode")
    with hosted(**PINNED) as host:
        await caller.call(host.url)
        await caller.say(*packets[:20])
        await caller.hear()
        stopping = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(host.app.stop(), host.loop))
        with pytest.raises(ConnectionClosed):
            while True:
                await caller.hear()
        await stopping
    assert caller.socket.close_code == 1012
    caller.session.lose()
    heard = len(caller.heard) // 2
    ready = await caller.call(pinned.url)
    assert (ready.resumed, ready.input_position, ready.output_position) == ("exact", 0, heard)
    await caller.say(*packets[20:])
    done = await caller.finish()
    assert caller.heard == expected and done.output == len(expected) // 2


async def test_a_second_utterance_is_replayed_from_its_own_start():
    caller = Caller("/v1/encode")
    with hosted(FakeRunner(), **LIVES_ON) as host:
        await caller.call(host.url)
        await caller.say(s16(speech(*LEVELS)), Flush())
        await caller.hear_until(Flushed)
        await caller.say(s16(speech(*LEVELS[:12])), Mark("there"), s16(speech(*LEVELS[12:])))
        await caller.hear()
        caller.lose()
    with hosted(FakeRunner()) as host:
        ready = await caller.call(host.url)
        assert ready.resumed == "approximate" and ready.input_position == 320 * len(LEVELS)
        await caller.finish()
        assert caller.heard == tokens_of(LEVELS).tobytes() * 2
        assert caller.events[1:-1] == [Marked("there")]


async def test_a_clear_that_never_reached_the_server_is_sent_again():
    with hosted(FakeRunner(), **LIVES_ON) as host:
        caller = Caller("/v1/encode")
        await caller.call(host.url)
        await caller.say(s16(speech(*LEVELS)))
        await caller.hear()
        caller.lose()
        caller.session.send(Clear())
        caller.session.send_payload(s16(speech(7, 8)))
        await caller.call(host.url)
        cleared = await caller.hear_until(Cleared)
        assert cleared.output == caller.session.output_position
        before = len(caller.heard)
        await caller.finish()
        assert caller.heard[before:] == tokens_of([7, 8]).tobytes()


async def test_a_resuming_client_takes_over_from_its_half_open_connection():
    with hosted(FakeRunner(), **LIVES_ON) as host:
        caller = Caller("/v1/encode")
        await caller.call(host.url)
        await caller.say(s16(speech(*LEVELS[:9])))
        old = caller.socket
        caller.session.lose()
        assert (await caller.call(host.url)).resumed == "exact"
        await asyncio.wait_for(old.wait_closed(), DEADLINE_S)
        assert old.close_code == 1006
        await caller.say(s16(speech(*LEVELS[9:])))
        await caller.finish()
        assert caller.heard == tokens_of(LEVELS).tobytes()


async def test_an_unresumed_session_ends_and_its_token_expires():
    with hosted(FakeRunner(), resume_s=0.1) as host:
        caller = Caller("/v1/encode")
        await caller.call(host.url)
        caller.lose()
        await host.emptied()
        bare = replace(caller.session.resuming(caller.request), utterance=None)
        async with talk(host.url, bare.target) as session:
            assert session.session.ready.resumed == "new"


async def test_a_full_server_evicts_the_longest_lost_session():
    with hosted(FakeRunner(slots=2), max_sessions=2, **LIVES_ON) as host:
        first, second, third = (Caller("/v1/encode") for _ in range(3))
        for caller in (first, second):
            await caller.call(host.url)
            caller.socket.transport.abort()
            await asyncio.wait_for(caller.socket.wait_closed(), DEADLINE_S)
            caller.session.lose()
        await third.call(host.url)
        assert (await second.call(host.url)).resumed == "exact"
        with pytest.raises(InvalidStatus) as caught:
            await first.call(host.url)
        assert caught.value.response.status_code == 503


async def test_a_resume_token_is_refused_with_another_key(tmp_path):
    keys = {name: new_key() for name in ("alice", "bob")}
    path = tmp_path / "keys"
    path.write_text("".join(key_line(name, key) + "\n" for name, key in keys.items()))
    with hosted(FakeRunner(), api_keys_file=str(path), **LIVES_ON) as host:
        caller = Caller("/v1/encode", additional_headers={"Authorization": f"Bearer {keys['alice']}"})
        await caller.call(host.url)
        await caller.say(s16(speech(*LEVELS[:9])))
        caller.lose()
        thief = Caller("/v1/encode", additional_headers={"Authorization": f"Bearer {keys['bob']}"})
        await thief.call(host.url)
        thief.session.ready = replace(thief.session.ready, resume=caller.session.ready.resume)
        thief.lose()
        assert (await thief.call(host.url)).session not in [ready.session for ready in caller.readies]
        assert (await caller.call(host.url)).resumed == "exact"


async def test_a_resume_without_the_needed_output_is_reported_as_approximate():
    with hosted(FakeRunner(), max_replay_bytes=4, **LIVES_ON) as host:
        caller = Caller("/v1/encode")
        await caller.call(host.url)
        await caller.say(s16(speech(*LEVELS)))
        async with asyncio.timeout(DEADLINE_S):
            while not caller.heard:
                await caller.hear()
        caller.lose()
        caller.heard, caller.session.output_position = b"", 0
        ready = await caller.call(host.url)
        assert ready.resumed == "approximate" and ready.session != caller.readies[0].session
        await caller.finish()
        assert caller.heard == tokens_of(LEVELS).tobytes()


async def test_an_ended_session_is_freed():
    """Without the cycle collector, which runs rarely: a session holds megabytes of output for its client."""
    with hosted(FakeRunner(), **LIVES_ON | {"resume_s": 0.2}) as host:
        gc.collect()
        gc.disable()
        try:
            async with talk(host.url, "/v1/roundtrip") as client:
                await client.send(s16(speech(*LEVELS)))
                await client.finish()
            async with talk(host.url, "/v1/roundtrip") as client:
                client.socket.transport.abort()
            async with talk(host.url, "/v1/encode") as client:
                await client.socket.send("nonsense")
                await client.fail()
            await host.emptied()
            for _ in range(50):  # the client sees a closed connection before the server does
                held = [one for one in gc.get_objects() if type(one) in (Session, WebSocket)]
                if not held:
                    break
                await asyncio.sleep(0.1)
                held.clear()
            else:
                pytest.fail("a session or a connection is held that has ended")
        finally:
            gc.enable()
