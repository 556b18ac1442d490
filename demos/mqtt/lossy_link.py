"""A lossy link to a broker: a proxy that drops, repeats and reorders PUBLISH packets of QoS 0, as radio does.

All other packets pass unchanged, since their delivery is acknowledged. The seed determines which packets are affected.
The link also counts its traffic: bytes of MQTT and segments of TCP.
"""

import asyncio
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

PUBLISH = 3
SEGMENTS_AT = 136
"""Offset of segs_out and segs_in in tcp_info."""
QOS_BITS = 0b0110
FATES = ("dropped", "repeated", "reordered", "passed")
LATE_S = 0.1
"""A reordered packet waits for the next one, but no longer than this."""


@dataclass(frozen=True)
class Damage:
    """Shares of PUBLISH packets with QoS 0 that are dropped, sent twice, or sent after the next one."""

    drop: float = 0.0
    repeat: float = 0.0
    reorder: float = 0.0


class LossyLink:
    """A proxy between clients and the broker at `broker_port`.

    `counts` holds the number of packets for each fate, `mqtt_bytes` the bytes received for forwarding, `up` and `down`.
    """

    def __init__(self, broker_port: int, damage: Damage, seed: int = 0) -> None:
        self.damage = damage
        self.counts: Counter[str] = Counter()
        self.mqtt_bytes: Counter[str] = Counter()
        self._clients: set[asyncio.StreamWriter] = set()
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

    @property
    def segments(self) -> int:
        """TCP segments on the clients' open connections, in both directions, including acknowledgements."""
        return sum(map(_segments, self._clients))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        self._clients.add(writer)
        try:
            upstream, downstream = await asyncio.open_connection("127.0.0.1", self._broker_port)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, downstream, "up"))
                group.create_task(self._pass_on(upstream, writer, "down"))
        except (OSError, asyncio.CancelledError):  # cancelled by `close`, which waits for this task
            pass
        finally:
            self._links.discard(task)
            self._clients.discard(writer)
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        late: list[bytes] = []

        def release() -> None:
            for packet in late:
                writer.write(packet)
            late.clear()

        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                packet = await _packet(reader)
                self.mqtt_bytes[way] += len(packet)
                fate = self._fate(packet)
                if fate == "reordered":
                    late.append(packet)
                    asyncio.get_running_loop().call_later(LATE_S, release)
                    continue
                for _ in range({"dropped": 0, "repeated": 2}.get(fate, 1)):
                    writer.write(packet)
                release()
                await writer.drain()
        writer.close()

    def _fate(self, packet: bytes) -> str:
        """Draws at random for PUBLISH packets with QoS 0."""
        if packet[0] >> 4 != PUBLISH or packet[0] & QOS_BITS:
            return "passed"
        damage = self.damage
        rest = 1 - damage.drop - damage.repeat - damage.reorder
        (fate,) = self._random.choices(FATES, (damage.drop, damage.repeat, damage.reorder, rest))
        self.counts[fate] += 1
        return fate


def _segments(writer: asyncio.StreamWriter) -> int:
    """Sums both directions, from Linux's struct tcp_info; 0 if there is none."""
    with suppress(OSError, AttributeError, struct.error):
        info = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, SEGMENTS_AT + 8)
        return sum(struct.unpack_from("II", info, SEGMENTS_AT))
    return 0


async def _packet(reader: asyncio.StreamReader) -> bytes:
    """Reads type and flags, the length in 7 bits per byte, and the rest."""
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
async def lossy(broker_port: int, damage: Damage, seed: int = 0) -> AsyncIterator[LossyLink]:
    proxy = LossyLink(broker_port, damage, seed)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()
