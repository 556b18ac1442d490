"""The proxy applies the requested fault exactly, at the byte, and nothing else."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from benchmarks.common.faulty_proxy import HELD_BYTES, Proxy, proxy

DEADLINE_S = 10.0
QUIET_S = 0.05
"""Time to wait before asserting that nothing arrives."""
PAYLOAD = random.Random(0).randbytes(3_000_000)


@dataclass
class Pipe:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read(self, count: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(count), DEADLINE_S)

    async def rest(self) -> bytes:
        return await asyncio.wait_for(self.reader.read(), DEADLINE_S)

    async def hears_nothing(self) -> bool:
        try:
            await asyncio.wait_for(self.reader.read(1), QUIET_S)
        except TimeoutError:
            return True
        return False


class Bench:
    """A proxy in front of a server, and both ends of every connection."""

    def __init__(self, proxy: Proxy, accepted: asyncio.Queue[Pipe]) -> None:
        self.proxy, self._accepted, self._pipes = proxy, accepted, []

    async def client(self) -> Pipe:
        pipe = Pipe(*await asyncio.wait_for(asyncio.open_connection(self.proxy.host, self.proxy.port), DEADLINE_S))
        self._pipes.append(pipe)
        return pipe

    async def pair(self) -> tuple[Pipe, Pipe]:
        client = await self.client()
        server = await asyncio.wait_for(self._accepted.get(), DEADLINE_S)
        self._pipes.append(server)
        return client, server

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.writer.transport.abort()


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    accepted: asyncio.Queue[Pipe] = asyncio.Queue()
    server = await asyncio.start_server(lambda *pipe: accepted.put_nowait(Pipe(*pipe)), "127.0.0.1", 0)
    async with proxy(*server.sockets[0].getsockname()[:2]) as made:
        tried = Bench(made, accepted)
        yield tried
        tried.close()
    server.close()


async def test_every_byte_passes_in_both_directions_and_is_counted() -> None:
    async with bench() as b:
        client, server = await b.pair()
        assert b.proxy.url == f"ws://127.0.0.1:{b.proxy.port}"
        client.writer.write(PAYLOAD)
        server.writer.write(PAYLOAD[::-1])
        up, down = await asyncio.gather(server.read(len(PAYLOAD)), client.read(len(PAYLOAD)))
        assert up == PAYLOAD and down == PAYLOAD[::-1]
        assert b.proxy.to_server.bytes_passed == b.proxy.to_client.bytes_passed == len(PAYLOAD)
        assert (b.proxy.accepted, b.proxy.open_links) == (1, 1)


async def test_the_end_of_one_direction_leaves_the_other_and_both_ends_close_the_link() -> None:
    async with bench() as b:
        client, server = await b.pair()
        client.writer.write(b"ask")
        client.writer.write_eof()
        assert await server.rest() == b"ask"
        server.writer.write(b"answer")
        server.writer.write_eof()
        assert await client.rest() == b"answer"
        await until(lambda: b.proxy.open_links == 0)


async def test_a_delay_holds_every_byte_of_one_direction_and_jitter_keeps_their_order() -> None:
    async with bench() as b:
        client, server = await b.pair()
        b.proxy.to_server.delay_s, b.proxy.to_server.jitter_s = 0.2, 0.02
        clock = asyncio.get_running_loop().time
        begin_s = clock()
        for byte in range(50):
            client.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert await server.read(50) == bytes(range(50)) and clock() - begin_s >= 0.2
        begin_s = clock()
        server.writer.write(b"x")
        await client.read(1)
        assert clock() - begin_s < 0.2


async def test_a_stall_holds_bytes_and_closes_until_it_is_over() -> None:
    async with bench() as b:
        client, server = await b.pair()
        b.proxy.stall()
        client.writer.write(b"held")
        client.writer.write_eof()
        server.writer.write(b"too")
        assert await server.hears_nothing() and await client.hears_nothing()
        b.proxy.resume()
        assert await server.rest() == b"held" and await client.read(3) == b"too"


async def test_a_stalled_sender_is_blocked_and_loses_nothing() -> None:
    payload = bytes(16 * HELD_BYTES)
    async with bench() as b:
        client, server = await b.pair()
        b.proxy.stall()
        client.writer.write(payload)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.writer.drain(), 4 * QUIET_S)
        b.proxy.resume()
        assert await server.read(len(payload)) == payload


async def test_half_open_hides_everything_from_both_sides_even_a_close() -> None:
    async with bench() as b:
        client, server = await b.pair()
        b.proxy.half_open()
        server.writer.write(b"x")
        client.writer.write(b"x")
        assert await server.hears_nothing() and await client.hears_nothing()
        client.writer.transport.abort()
        assert await server.hears_nothing()
        assert b.proxy.open_links == 1
        another, its_server = await b.pair()
        another.writer.write(b"new")
        assert await its_server.read(3) == b"new"


async def test_a_reset_reaches_both_sides() -> None:
    async with bench() as b:
        client, server = await b.pair()
        b.proxy.reset()
        for side in (client, server):
            with pytest.raises(ConnectionResetError):
                await side.rest()
        assert b.proxy.open_links == 0


async def test_a_cut_delivers_forwarded_bytes_then_the_end() -> None:
    async with bench() as b:
        client, server = await b.pair()
        client.writer.write(b"up")
        server.writer.write(b"down")
        assert await server.read(2) == b"up" and await client.read(4) == b"down"
        b.proxy.cut()
        client.writer.write(b"lost")
        assert await server.rest() == b"" and await client.rest() == b""
        client.writer.close()
        server.writer.close()
        await until(lambda: b.proxy.open_links == 0)


@pytest.mark.parametrize("count", [0, 1, 2, 65_537, 1_000_003])
@pytest.mark.parametrize("direction", ["to_server", "to_client"])
async def test_a_cut_is_exact_to_the_byte_while_both_sides_send(direction: str, count: int) -> None:
    async with bench() as b:
        ends = await b.pair()
        sender, receiver = ends if direction == "to_server" else ends[::-1]
        getattr(b.proxy, direction).cut_after_bytes(count)
        receiver.writer.write(PAYLOAD)
        sender.writer.write(PAYLOAD)
        assert await receiver.rest() == PAYLOAD[:count]
        assert getattr(b.proxy, direction).bytes_passed == count
        after, its_receiver = (await b.pair())[:: 1 if direction == "to_server" else -1]
        after.writer.write(b"once")
        assert await its_receiver.read(4) == b"once"


async def test_a_proxy_that_is_down_refuses_connections_and_keeps_open_ones() -> None:
    async with bench() as b:
        client, server = await b.pair()
        port = b.proxy.port
        b.proxy.down()
        with pytest.raises(ConnectionRefusedError):
            await b.client()
        client.writer.write(b"on")
        assert await server.read(2) == b"on"
        await b.proxy.up()
        assert b.proxy.port == port
        client, server = await b.pair()
        client.writer.write(b"again")
        assert await server.read(5) == b"again"


async def test_an_unreachable_server_resets_the_client() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()[:2]
    server.close()
    async with proxy(*address) as made:
        client = Pipe(*await asyncio.open_connection(made.host, made.port))
        with pytest.raises(ConnectionResetError):
            await client.rest()
        assert made.open_links == 0


async def test_leaving_the_context_closes_every_connection_in_any_state() -> None:
    async with bench() as b:
        half, stalled = await b.pair(), None
        b.proxy.half_open()
        b.proxy.stall()
        stalled = await b.pair()
        stalled[0].writer.write(b"x")
        await b.proxy.close()
        for side in (*half, *stalled):
            with pytest.raises(ConnectionResetError):
                await side.rest()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():  # noqa: ASYNC110 - the proxy has no event for it
            await asyncio.sleep(0.001)
