"""A SOCKS5 server (RFC 1928, RFC 1929) that connects every name and address to the loopback."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

USER, PASSWORD = b"ann", b"secret"


@dataclass
class SocksServer:
    """`asked`: the names and addresses that clients gave."""

    refuses: bool = False
    port: int = 0
    asked: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._greet(reader, writer)
            _, _, _, kind = await reader.readexactly(4)
            size = (await reader.readexactly(1))[0] if kind == 3 else 4
            host = await reader.readexactly(size)
            port = int.from_bytes(await reader.readexactly(2), "big")
            self.asked.append(host.decode() if kind == 3 else ".".join(map(str, host)))
            writer.write(bytes([5, 2 if self.refuses else 0, 0, 1, 0, 0, 0, 0, 0, 0]))
            if self.refuses:
                return
            target_reader, target_writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(_copy(reader, target_writer), _copy(target_reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, count = await reader.readexactly(2)
        has_user = 2 in await reader.readexactly(count)
        writer.write(bytes([5, 2 if has_user else 0]))
        if has_user:
            _, size = await reader.readexactly(2)
            user = await reader.readexactly(size)
            password = await reader.readexactly((await reader.readexactly(1))[0])
            writer.write(bytes([1, (user, password) != (USER, PASSWORD)]))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while part := await reader.read(65_536):
            writer.write(part)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def socks_server(refuses: bool = False) -> AsyncIterator[SocksServer]:
    socks = SocksServer(refuses)
    server = await asyncio.start_server(socks.serve, "127.0.0.1", 0)
    socks.port = server.sockets[0].getsockname()[1]
    try:
        yield socks
    finally:
        server.close()
