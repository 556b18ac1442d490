"""Tools of the attackers in `benchmarks.hostile`: the server's address, raw connections to it, and prepared bytes.

Attackers keep no protocol state. They write prepared frames, so that they use little of the processors that they share
with the server, and only the server limits them.
"""

import asyncio
import os
import signal
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from websockets.frames import Frame, Opcode

from neucodec_streaming.config import INPUT_HOP, TOKENS_PER_SECOND

BLOCK_BYTES = 65_536
CONNECT_S = 5.0
READ_BYTES = 65_536
SWITCHING = "101"


def request(path: str, host: str, *, headers: Sequence[str] = ()) -> bytes:
    """An HTTP upgrade request, with these headers in place of the correct ones if any are given."""
    lines = headers or (
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version: 13",
    )
    return "\r\n".join((f"GET {path} HTTP/1.1", f"Host: {host}", *lines, "", "")).encode()


def frame(data: bytes | str, opcode: Opcode | None = None, *, fin: bool = True, mask: bool = True) -> bytes:
    """A message framed as from a client, valid or not."""
    is_text = isinstance(data, str)
    chosen = opcode if opcode is not None else (Opcode.TEXT if is_text else Opcode.BINARY)
    return Frame(chosen, data.encode() if isinstance(data, str) else data, fin).serialize(mask=mask)


def block(messages: Sequence[bytes]) -> bytes:
    """The messages, framed and repeated to about BLOCK_BYTES."""
    once = b"".join(map(frame, messages))
    return once * max(1, BLOCK_BYTES // len(once))


@dataclass
class Target:
    """The server, and an attack's open connections and processes; `counts` counts events."""

    host: str
    port: int
    speech: bytes
    tokens: bytes
    counts: Counter[str] = field(default_factory=Counter)
    children: set[int] = field(default_factory=set)
    """Processes that were started and not yet awaited."""
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @classmethod
    def of(cls, url: str, speech: bytes, tokens: bytes) -> "Target":
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None, url
        return cls(parts.hostname, parts.port, speech, tokens)

    @property
    def name(self) -> str:
        return f"{self.host}:{self.port}"

    def seconds_of(self, kind: str) -> list[bytes]:
        """Payload of a session of that kind, one framed message for each second."""
        payload, unit = (self.tokens, 2) if kind == "decode" else (self.speech, 2 * INPUT_HOP)
        size = TOKENS_PER_SECOND * unit
        return [frame(payload[start : start + size]) for start in range(0, len(payload), size)]

    async def connect(self, receive_bytes: int | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """`receive_bytes` is the size of its receive buffer. OSError, TimeoutError."""
        peer = socket.socket()
        if receive_bytes is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        peer.setblocking(False)
        try:
            async with asyncio.timeout(CONNECT_S):
                await asyncio.get_running_loop().sock_connect(peer, (self.host, self.port))
        except BaseException:
            peer.close()
            raise
        reader, writer = await asyncio.open_connection(sock=peer)
        self._writers.add(writer)
        return reader, writer

    async def open(
        self, path: str, receive_bytes: int | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """Opens a session; None if the server refuses, whose status is counted. OSError, TimeoutError."""
        reader, writer = await self.connect(receive_bytes)
        writer.write(request(path, self.name))
        status = await self.status(reader)
        if status == SWITCHING:
            async with asyncio.timeout(CONNECT_S):
                await reader.read(READ_BYTES)  # earlier bytes would be an error
            return reader, writer
        self.drop(writer)
        return None

    async def status(self, reader: asyncio.StreamReader) -> str:
        """The status of the answer, which is counted; "" if the server closed the connection. TimeoutError, OSError."""
        try:
            async with asyncio.timeout(CONNECT_S):
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            head = error.partial
        status = head[9:12].decode(errors="replace")
        self.counts[f"HTTP {status}" if status else "closed"] += 1
        return status

    def drop(self, writer: asyncio.StreamWriter) -> None:
        """Closes without a closing handshake."""
        self._writers.discard(writer)
        writer.transport.abort()

    def drop_all(self) -> None:
        for writer in list(self._writers):
            self.drop(writer)
        for pid in list(self.children):
            self.kill(pid)

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self.counts["killed"] += 1
        self.children.discard(pid)
