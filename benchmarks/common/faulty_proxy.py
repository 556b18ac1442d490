"""A TCP proxy with faults on command: delay, stall, half-open, reset, cut at a byte, down.

`async with proxy(host, port) as p` listens on its own port (`p.url`) and forwards every connection to the server. Calls
affect all open connections at once and do not wait; bytes written to a socket before a call are with the kernel and
arrive, except after `reset`.
"""

import asyncio
import random
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

CONNECT_S = 5.0
"""On timeout the client's connection is reset."""
CUT_S = 2.0
"""Timeout of a cut connection's peer to close its side; then it is reset."""
HELD_BYTES = 1 << 20
"""Limit of each connection and direction; beyond it reading stops, which the sender feels."""
EOF = b""


class Direction:
    """Treatment of bytes in one direction; `bytes_passed` counts them over all connections."""

    def __init__(self, rng: random.Random) -> None:
        self.delay_s = 0.0
        self.jitter_s = 0.0
        """Random addition to the delay, at most this much; order is kept."""
        self.bytes_passed = 0
        self._rng = rng
        self._left: int | None = None

    def cut_after_bytes(self, count: int) -> None:
        """Cuts a connection after exactly `count` more bytes in this direction, once."""
        self._left = count

    def draw_delay_s(self) -> float:
        return self.delay_s + self._rng.uniform(0, self.jitter_s)

    def pass_on(self, piece: bytes) -> tuple[bytes, bool]:
        """Returns the part of a piece to forward, and whether to cut the connection after it."""
        is_cut = self._left is not None and len(piece) >= self._left
        if self._left is not None:
            piece = piece[: self._left]
            self._left = None if is_cut else self._left - len(piece)
        self.bytes_passed += len(piece)
        return piece, is_cut


class Proxy:
    """The listening socket and the connections; created by `proxy`."""

    def __init__(self, upstream_host: str, upstream_port: int, seed: int) -> None:
        rng = random.Random(seed)
        self.to_server, self.to_client = Direction(rng), Direction(rng)
        self.host, self.port = "127.0.0.1", 0
        self.accepted = 0
        self.is_stalled = False
        self.links: set[ProxyLink] = set()
        self._upstream = upstream_host, upstream_port
        self._server: asyncio.Server | None = None
        self._connecting: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"ws://{self.host}:{self.port}"

    @property
    def open_links(self) -> int:
        """Number of connections, including half-open ones."""
        return len(self.links)

    async def up(self) -> None:
        """Listens, after `down` on the same port."""
        if self._server is None:
            accept = asyncio.get_running_loop().create_server
            self._server = await accept(lambda: ProxyLink(self).client, self.host, self.port, reuse_address=True)
            self.port = self._server.sockets[0].getsockname()[1]

    def down(self) -> None:
        """Refuses new connections; open ones continue."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def stall(self) -> None:
        """Holds all bytes and ends in both directions until `resume`; new connections are accepted and wait too."""
        self.is_stalled = True

    def resume(self) -> None:
        """Forwards everything held, in order."""
        self.is_stalled = False
        for link in list(self.links):
            link.drain()

    def half_open(self) -> None:
        """Stops forwarding on open connections without notifying either side; new ones work normally."""
        for link in list(self.links):
            link.half_open()

    def cut(self) -> None:
        """Ends both sides of every open connection after the forwarded bytes."""
        for link in list(self.links):
            link.cut()

    def reset(self) -> None:
        """Resets both sides of every open connection (RST)."""
        for link in list(self.links):
            link.reset()

    def connect(self, link: "ProxyLink") -> None:
        """Connects a new link to the server; if that fails, resets its client."""
        self.accepted += 1
        self.links.add(link)

        async def run() -> None:
            try:
                async with asyncio.timeout(CONNECT_S):
                    await asyncio.get_running_loop().create_connection(lambda: link.server, *self._upstream)
            except (OSError, TimeoutError):
                link.reset()

        task = asyncio.create_task(run(), name="proxy connects")
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def close(self) -> None:
        self.down()
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        self.reset()
        await asyncio.sleep(0)  # transports close their sockets in the loop's next iteration


class ProxyLink:
    """One connection: its two sockets and the bytes held between them."""

    def __init__(self, of: Proxy) -> None:
        self.proxy = of
        self.client, self.server = Side(self, of.to_server), Side(self, of.to_client)
        self.client.other, self.server.other = self.server, self.client

    @property
    def sides(self) -> tuple["Side", "Side"]:
        return self.client, self.server

    def drain(self) -> None:
        for side in self.sides:
            side.drain()

    def half_open(self) -> None:
        for side in self.sides:
            side.go_deaf()

    def cut(self) -> None:
        """Ends both sides and discards their bytes until they have closed: closing with unread bytes would send a RST,
        which overtakes the sent bytes.
        """
        for side in self.sides:
            side.hang_up()

    def reset(self) -> None:
        for side in self.sides:
            side.reset()
        self.proxy.links.discard(self)

    def ended(self, side: "Side", error: Exception | None) -> None:
        if error is not None:
            self.reset()
        elif side.other.transport is None or side.other.transport.is_closing():
            self.proxy.links.discard(self)


class Side(asyncio.Protocol):
    """One socket of a link: received bytes are held until they are due, then sent by the other one."""

    other: "Side"

    def __init__(self, link: ProxyLink, direction: Direction) -> None:
        self.transport: asyncio.Transport | None = None
        self._link, self._direction = link, direction
        self._held: deque[tuple[float, bytes]] = deque()
        self._held_bytes = 0
        self._is_writable = True
        self._is_deaf = False
        self._has_ended = self._has_sent_end = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(0)  # held here instead, where they can be stalled
        if self is self._link.client:
            self._link.proxy.connect(self._link)
        elif self._is_deaf:
            transport.abort()  # the link was ended before the server had answered
        else:
            self.other.drain()

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        loop = asyncio.get_running_loop()
        last_s = self._held[-1][0] if self._held else 0.0
        self._held.append((max(last_s, loop.time() + self._direction.draw_delay_s()), data))
        self._held_bytes += len(data)
        self.drain()
        if self._held_bytes > HELD_BYTES and self.transport is not None:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self._has_ended = True
        if self._is_deaf:
            self._close_if_over()
        else:
            self.data_received(EOF)
        return True  # the other direction may continue

    def pause_writing(self) -> None:
        self._is_writable = False

    def resume_writing(self) -> None:
        self._is_writable = True
        self.other.drain()

    def connection_lost(self, error: Exception | None) -> None:
        self._link.ended(self, error)

    def drain(self) -> None:
        """Passes due bytes to the other socket, as far as it takes them."""
        loop, sink = asyncio.get_running_loop(), self.other
        while self._held and not self._link.proxy.is_stalled and sink.transport is not None and sink._is_writable:
            due_s, piece = self._held[0]
            if due_s > loop.time():
                self._wake_at(due_s)
                break
            self._held.popleft()
            self._held_bytes -= len(piece)
            if piece == EOF:
                sink.finish()
                break
            part, is_cut = self._direction.pass_on(piece)
            if not sink.transport.is_closing():
                sink.transport.write(part)
            if is_cut:
                self._link.cut()
        if self._held_bytes <= HELD_BYTES and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def finish(self) -> None:
        if self.transport is not None and not self._has_sent_end and not self.transport.is_closing():
            self._has_sent_end = True
            with suppress(OSError):  # it is gone already
                self.transport.write_eof()
        self._close_if_over()
        self.other._close_if_over()

    def go_deaf(self) -> None:
        """Discards received and later bytes, and ignores the end."""
        self._forget()
        if self.transport is not None:
            self.transport.pause_reading()

    def hang_up(self) -> None:
        """Sends the end after the forwarded bytes, and waits briefly for the peer's."""
        self._forget()
        if self.transport is None:
            return
        self.transport.resume_reading()
        self.finish()
        self._wake_at(asyncio.get_running_loop().time() + CUT_S, self.reset)

    def reset(self) -> None:
        self._forget()
        if self.transport is not None and not self.transport.is_closing():
            peer = self.transport.get_extra_info("socket")
            with suppress(OSError):  # it is gone already
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()

    def _forget(self) -> None:
        self._is_deaf = True
        self._held.clear()
        self._held_bytes = 0
        if self._timer is not None:
            self._timer.cancel()

    def _wake_at(self, moment_s: float, call: Callable[[], None] | None = None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(moment_s, call or self.drain)

    def _close_if_over(self) -> None:
        if self._has_ended and self._has_sent_end and self.transport is not None:
            self.transport.close()


@asynccontextmanager
async def proxy(upstream_host: str, upstream_port: int, seed: int = 0) -> AsyncIterator[Proxy]:
    """`seed` determines the jitter."""
    made = Proxy(upstream_host, upstream_port, seed)
    await made.up()
    try:
        yield made
    finally:
        await made.close()
