"""An MQTT-aware proxy: it drops, repeats and reorders PUBLISH packets of QoS 0, as radio does, and counts bytes.

Everything else passes untouched, since TCP below is reliable. Which packets are hit follows from the seed.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

PUBLISH = 3
HELD_S = 0.1
"""A packet that is to come late waits for the next one, but no longer than that."""


@dataclass(frozen=True)
class Damage:
    """Shares of PUBLISH packets with QoS 0 that are dropped, sent twice, and sent behind the next one."""

    drop: float = 0.0
    repeat: float = 0.0
    reorder: float = 0.0


class LossyProxy:
    """Between clients and the broker at `port`. `counts` has what befell packets, `sent_bytes` what went each way."""

    def __init__(self, broker_port: int, damage: Damage, seed: int = 0) -> None:
        self.damage = damage
        self.counts: Counter[str] = Counter()
        self.sent_bytes: Counter[str] = Counter()
        self._broker_port = broker_port
        self._random = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task] = set()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"mqtt://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            upstream, downstream = await asyncio.open_connection("127.0.0.1", self._broker_port)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, downstream, "up"))
                group.create_task(self._pass_on(upstream, writer, "down"))
        except (OSError, BaseExceptionGroup):
            pass
        finally:
            self._links.discard(task)
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        held: list[bytes] = []
        try:
            while True:
                try:
                    packet = await asyncio.wait_for(_packet(reader), HELD_S if held else None)
                except TimeoutError:  # what was read of a packet by then would be lost, but they come whole here
                    packet = b""
                for out in [*self._damaged(packet, held), *([] if packet else _emptied(held))]:
                    self.sent_bytes[way] += len(out)
                    writer.write(out)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            with suppress(OSError):
                writer.close()

    def _damaged(self, packet: bytes, held: list[bytes]) -> list[bytes]:
        if not packet:
            return []
        if packet[0] >> 4 != PUBLISH or packet[0] & 0b0110:
            return [packet]
        chance, damage = self._random.random(), self.damage
        self.counts["publish"] += 1
        if chance < damage.drop:
            self.counts["dropped"] += 1
            return []
        if chance < damage.drop + damage.repeat:
            self.counts["repeated"] += 1
            return [packet, packet, *_emptied(held)]
        if chance < damage.drop + damage.repeat + damage.reorder:
            self.counts["reordered"] += 1
            held.append(packet)
            return []
        return [packet, *_emptied(held)]


def _emptied(held: list[bytes]) -> list[bytes]:
    packets = list(held)
    held.clear()
    return packets


async def _packet(reader: asyncio.StreamReader) -> bytes:
    """One MQTT control packet: type and flags, the length in 7 bits a byte, and what follows."""
    head = await reader.readexactly(1)
    length = shift = 0
    while True:
        digit = await reader.readexactly(1)
        head += digit
        length |= (digit[0] & 0x7F) << shift
        shift += 7
        if not digit[0] & 0x80:
            return head + await reader.readexactly(length)


@asynccontextmanager
async def lossy(broker_port: int, damage: Damage, seed: int = 0) -> AsyncIterator[LossyProxy]:
    proxy = LossyProxy(broker_port, damage, seed)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()
