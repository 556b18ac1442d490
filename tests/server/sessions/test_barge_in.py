"""`clear` takes effect at once despite a backlog, and messages sent before `ready` are accepted in order."""

import asyncio
import threading
import time
from urllib.parse import urlsplit

import pytest
from websockets.frames import Frame, Opcode

from benchmarks.common.raw_connection import request
from neucodec_streaming.protocol.messages import Clear, Cleared, Done, End, Flush, Flushed, Mark, Marked, encode_message
from tests.server.hosting import DEADLINE_S, hosted, s16, talk
from tests.streaming.engine.fake import FakeRunner, audio_of, speech, tokens_of

HOUR = 180_000
"""Tokens."""
CLEARED_S = 0.1
PACE = {"max_messages_per_s": 500.0}  # the default, which the tests' server overrides


class SlowRunner(FakeRunner):
    """Computes nothing until the gate is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def step(self, *arguments):
        self.go_on.wait(DEADLINE_S)
        return super().step(*arguments)


def tokens(count: int) -> bytes:
    return bytes(range(256)) * (2 * count // 256 + 1)


@pytest.mark.parametrize("tokens_each", [25, 1500, 100_000])
async def test_cleared_comes_at_once_with_an_hour_of_tokens_pending(tokens_each: int) -> None:
    runner = SlowRunner()
    with hosted(runner, **PACE) as host:
        async with talk(host.url, "/v1/decode") as client:
            data = tokens(HOUR)[: 2 * HOUR]
            for start in range(0, len(data), 2 * tokens_each):
                await client.send(data[start : start + 2 * tokens_each])
            begin_s = time.monotonic()
            await client.send(Clear())
            cleared = await client.hear_until(Cleared)
            took_s = time.monotonic() - begin_s
            runner.go_on.set()
            assert cleared == Cleared(HOUR, 0)
            assert took_s < CLEARED_S
            await client.send(tokens_of([1, 2, 3]).tobytes(), Flush())
            await client.hear_until(Flushed)
            assert client.output == s16(audio_of(tokens_of([1, 2, 3])))


async def test_cleared_comes_at_once_with_audio_up_to_the_bound_pending() -> None:
    runner = SlowRunner()
    with hosted(runner, **PACE) as host:
        async with talk(host.url, "/v1/encode") as client:
            for _ in range(8):
                await client.send(bytes(130_000))
            begin_s = time.monotonic()
            await client.send(Clear())
            cleared = await client.hear_until(Cleared)
            assert time.monotonic() - begin_s < CLEARED_S
            assert cleared == Cleared(8 * 65_000, 0)
            runner.go_on.set()


async def test_a_client_beyond_the_bound_is_paused_and_loses_nothing() -> None:
    runner = SlowRunner()
    with hosted(runner, max_read_ahead_bytes=10_000, max_message_bytes=5000) as host:
        async with talk(host.url, "/v1/decode") as client:
            data = tokens(12_000)[:24_000]
            sending = asyncio.create_task(client.send(*(data[at : at + 4000] for at in range(0, len(data), 4000))))
            session = next(iter(host.app.registry._entries.values())).session
            for _ in range(500):
                if session._transport is not None and session._transport.is_held:
                    break
                await asyncio.sleep(0.01)
            assert session._transport is not None and session._transport.is_held
            assert session._conversation.input_position * 2 <= 10_000 + 2000 + 2 * 5000
            runner.go_on.set()
            done = asyncio.create_task(client.hear_until(Done))
            await sending
            await client.send(End())
            assert await done == Done(12_000, 12_000 * 480, 0)


async def test_the_order_of_payload_marks_and_flushes_is_kept_over_the_backlog() -> None:
    runner = SlowRunner()
    with hosted(runner) as host:
        async with talk(host.url, "/v1/encode") as client:
            await client.send(s16(speech(*range(200))), Mark("a"), Flush(), s16(speech(*range(50))), Mark("b"), Flush())
            runner.go_on.set()
            for _ in range(2):
                await client.hear_until(Flushed)
            assert client.messages == [Marked("a"), Flushed(), Marked("b"), Flushed()]
            assert client.output == tokens_of(list(range(200))).tobytes() + tokens_of(list(range(50))).tobytes()


async def _say(url: str, path: str, *items: tuple[Opcode, bytes]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Sends everything in one write."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(request(path, "host") + b"".join(Frame(*item).serialize(mask=True) for item in items))
    return reader, writer


async def test_messages_sent_before_ready_are_accepted_in_order() -> None:
    with hosted(FakeRunner(), close_timeout_s=0.1) as host:
        levels = [3, 1, 4, 1, 5, 9, 2]
        audio = s16(speech(*levels))
        reader, writer = await _say(
            host.url,
            "/v1/encode",
            (Opcode.BINARY, audio[:1000]),
            (Opcode.BINARY, audio[1000:]),
            (Opcode.TEXT, b'{"type":"mark","id":1}'),
            (Opcode.TEXT, encode_message(End()).encode()),
        )
        said = await asyncio.wait_for(reader.read(), DEADLINE_S)
        ready, mark, done = (said.find(word) for word in (b'"ready"', b'"mark"', b'"done"'))
        assert 0 < ready < said.find(tokens_of(levels).tobytes()) < mark < done
        writer.close()


@pytest.mark.parametrize("invalid", ["not json", '{"type":"sing"}', "x" * 20_000])
async def test_the_error_of_an_invalid_message_sent_before_ready_follows_ready(invalid: str) -> None:
    with hosted(FakeRunner(), max_message_bytes=16_384, close_timeout_s=0.1) as host:
        mark = encode_message(Mark(1)).encode()
        items = ((Opcode.TEXT, mark), (Opcode.TEXT, invalid.encode()), (Opcode.TEXT, mark))
        reader, writer = await _say(host.url, "/v1/encode", *items)
        said = await asyncio.wait_for(reader.read(), DEADLINE_S)
        ready, error = said.find(b'"type":"ready"'), said.find(b'"type":"error"')
        assert 0 < ready < said.find(b'"type":"mark"') < error and said.count(b'"type":"mark"') == 1
        writer.close()


async def test_a_resuming_client_must_wait_for_ready() -> None:
    with hosted(FakeRunner(), resume_s=30.0, close_timeout_s=0.1) as host:
        for query in ("resume=unknown&utterance=0,0", None):
            if query is None:
                async with talk(host.url, "/v1/encode") as client:
                    query = f"resume={client.session.ready.resume.token}&received=0&utterance=0,0"
                    client.socket.transport.abort()
            reader, writer = await _say(host.url, f"/v1/encode?{query}", (Opcode.BINARY, bytes(640)))
            said = await asyncio.wait_for(reader.read(), DEADLINE_S)
            assert b'"bad_message"' in said and b"wait for ready" in said
            writer.close()
