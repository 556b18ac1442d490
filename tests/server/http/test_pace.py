"""No connection starves the event loop, whatever the number and size of its messages."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

import pytest
from websockets.frames import Frame, Opcode

from benchmarks.wire import servers
from neucodec_streaming.protocol.messages import Flush, Flushed, Mark, Marked
from neucodec_streaming.server.sessions.pace import BURST_S
from neucodec_streaming.server.settings.fields import Settings
from tests.server.hosting import DEADLINE_S, hosted, talk
from tests.streaming.engine.fake import FakeRunner

PACE = 500.0
UPGRADE = (
    "GET /v1/encode HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
MARK = Frame(Opcode.TEXT, b'{"type":"mark","id":1}').serialize(mask=True)
PING = Frame(Opcode.PING, bytes(125)).serialize(mask=True)
EMPTY = Frame(Opcode.BINARY, b"").serialize(mask=True)
SAMPLE = Frame(Opcode.BINARY, b"ab").serialize(mask=True)


@asynccontextmanager
async def raw(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(UPGRADE.encode())
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE_S)).startswith(b"HTTP/1.1 101")
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@pytest.fixture
def url_of_processes() -> Iterator[str]:
    """A server with an event loop and a worker in processes of their own, as in `neucodec-server`: as threads of this
    process, all of them would wait for its interpreter lock most of the time.
    """
    limits = {"max_load": 1e9, "max_behind_s": 1e9, "max_messages_per_s": PACE, "max_attempts_per_minute": None}
    settings = Settings(port=0, workers=1, max_sessions=4, resume_s=0, close_timeout_s=0.1, **limits)
    with servers.hosted(partial(servers.ours, settings, partial(servers.load_constant, 0.0))) as server:
        yield server.url


@pytest.mark.alone
@pytest.mark.parametrize("frame", [MARK, PING, EMPTY, SAMPLE], ids=["marks", "pings", "empty", "samples"])
async def test_a_flood_of_small_frames_does_not_hold_up_another_session(url_of_processes: str, frame: bytes) -> None:
    url = url_of_processes
    async with talk(url, "/v1/encode") as healthy, raw(url) as one, raw(url) as other:
        for _, writer in (one, other):
            writer.write(frame * 200_000)
        begin_s = time.monotonic()
        for _ in range(10):
            await healthy.send(Flush())
            await healthy.hear_until(Flushed)
        assert time.monotonic() - begin_s < 0.5, "400,000 frames are seconds of work"


async def test_messages_above_the_pace_are_slowed_and_every_one_is_answered() -> None:
    count = round((BURST_S + 0.3) * PACE)
    with hosted(FakeRunner(), max_messages_per_s=PACE, close_timeout_s=0.1) as host:
        async with talk(host.url, "/v1/encode") as session:
            begin_s = time.monotonic()
            await session.send(*map(Mark, range(count)))
            for number in range(count):
                assert (await session.hear_until(Marked)).id == number
            assert time.monotonic() - begin_s >= 0.25


async def test_a_client_that_does_not_read_its_pongs_is_paused() -> None:
    with hosted(FakeRunner(), max_messages_per_s=PACE, close_timeout_s=0.1) as host:
        async with raw(host.url) as (reader, writer):
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(PING * 100_000)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(writer.drain(), 0.3)


async def test_the_unread_bytes_of_a_gone_client_are_discarded() -> None:
    with hosted(FakeRunner(), max_messages_per_s=PACE, close_timeout_s=0.1) as host:
        async with raw(host.url) as (_, writer):
            writer.write(EMPTY * 500)
        await host.emptied()
