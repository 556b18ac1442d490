"""How fast one connection is read: no faster than MESSAGES_PER_S, and never much at a time, whatever it sends.

A read brings up to 256 KiB, which may be 40,000 frames of nothing. `websockets` would parse them all, and answer the
pings among them, before any other connection has its turn. Here bytes are parsed in small pieces; while frames wait for
their reader, answers wait to be sent, or the connection has had its share, the rest waits, and with it the client.
"""

import asyncio
from typing import Any

from websockets.asyncio.server import ServerConnection

MESSAGES_PER_S = 1000.0
"""Frames of any kind. A live session sends 50 packets a second, one that sends faster can send larger ones."""
BURST_MESSAGES = 200
"""As many are taken at once from a connection that has been quiet."""
PIECE_BYTES = 1024


class PacedConnection(ServerConnection):
    """A connection that is parsed by its pace. It alone pauses and resumes reading."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._held = memoryview(b"")
        self._credit = float(BURST_MESSAGES)
        self._credited_s = self.loop.time()
        self._next: asyncio.Handle | None = None
        self.recv_messages.pause = lambda: None
        self.recv_messages.resume = self._soon

    def connection_lost(self, exc: Exception | None) -> None:
        self._held = memoryview(b"")
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._held = memoryview(bytes(self._held) + data) if self._held else memoryview(data)
        self._parse()

    def process_event(self, event: Any) -> None:
        self._credit -= 1
        super().process_event(event)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._soon()

    def _parse(self) -> None:
        """Parses what is held as far as may be now; reading goes on when nothing is held."""
        self._next = None
        while self._held and not self.recv_messages.paused and not self.paused:
            if (wait_s := self._wait_s()) > 0:
                self._next = self.loop.call_later(wait_s, self._parse)
                break
            piece, self._held = self._held[:PIECE_BYTES], self._held[PIECE_BYTES:]
            super().data_received(bytes(piece))
        if self.transport.is_closing():
            return
        if self._held or self.recv_messages.paused:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def _soon(self) -> None:
        """Not at once: others have their turn first."""
        if self._next is None:
            self._next = self.loop.call_soon(self._parse)

    def _wait_s(self) -> float:
        """How long until the connection may have a piece parsed."""
        now_s = self.loop.time()
        self._credit = min(BURST_MESSAGES, self._credit + (now_s - self._credited_s) * MESSAGES_PER_S)
        self._credited_s = now_s
        return -self._credit / MESSAGES_PER_S
