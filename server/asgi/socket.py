"""A WebSocket of an ASGI server as a session's Transport.

Two tasks serve a connection, since sessions call and ASGI awaits. One receives; it stops while the session holds it,
and then the server stops reading. The other sends the session's messages; while it waits for the client, at most
MAX_UNSENT_BYTES are queued.

    receive() -> MessagePace -> hand_on -> Session -> send -> queue -> send()
"""

import asyncio
import logging
from typing import Any

from neucodec_streaming.protocol.messages import ServerMessage, encode_message
from neucodec_streaming.server.asgi.messages import AsgiMessage, Receive, Send
from neucodec_streaming.server.sessions.pace import MessagePace
from neucodec_streaming.server.sessions.transport import HoldableTransport, SessionHandler, hand_on
from neucodec_streaming.server.settings.fields import Settings

MAX_UNSENT_BYTES = 65_536
MESSAGE_BYTES = 64
"""Bytes that a message counts for in addition to its payload."""
TURN_MESSAGES = 256
"""Messages handled before other connections get a turn: one read may bring many."""
NO_STATUS, LOST, RESTART = 1005, 1006, 1012
"""Statuses of RFC 6455 that servers report for an end without the client's closing handshake."""
_log = logging.getLogger(__name__)


class AsgiSocket(HoldableTransport):
    """One connection; `connections` contains it while it is open."""

    def __init__(self, receive: Receive, send: Send, settings: Settings, connections: set[Any]) -> None:
        super().__init__()
        self._receive, self._send = receive, send
        self._settings = settings
        self._connections = connections
        loop = asyncio.get_running_loop()
        self._pace = MessagePace(settings.max_messages_per_s, loop.time)
        self._listener: SessionHandler | None = None
        self._unsent: asyncio.Queue[AsgiMessage] = asyncio.Queue()
        self._unsent_bytes = 0
        self._cut: asyncio.Future[None] = loop.create_future()
        self.is_open = True
        self.gone: asyncio.Future[None] = loop.create_future()
        """Done when the connection is closed."""

    # What the session calls

    @property
    def is_writable(self) -> bool:
        """Whether there is room for more; if not, the session is called once there is."""
        return self._unsent_bytes <= MAX_UNSENT_BYTES

    def send(self, message: bytes | ServerMessage) -> None:
        """Sends a message; check `is_open` and `is_writable` first."""
        if isinstance(message, bytes):
            self._put({"type": "websocket.send", "bytes": message}, len(message))
        else:
            text = encode_message(message)
            self._put({"type": "websocket.send", "text": text}, len(text))

    def close(self, code: int, reason: str = "") -> None:
        """Starts the closing handshake after all messages; a client that does not answer is cut off."""
        if self.is_open:
            self.is_open = False
            self._put({"type": "websocket.close", "code": code, "reason": reason}, 0)
            self.release()  # reads to the end of the client's messages

    def drop(self) -> None:
        """Cuts the connection and stops calling its session."""
        self._listener = None
        self.abort()

    def abort(self) -> None:
        self.is_open = False
        if not self._cut.done():
            self._cut.set_result(None)

    # The connection

    async def serve(self, listener: SessionHandler, subprotocol: str | None) -> None:
        """Accepts the WebSocket and serves the session until either ends."""
        self._connections.add(self)
        self._listener = listener
        listener.opened(self)
        tasks: list[asyncio.Task[Any]] = []
        is_clean = False
        try:
            await self._send({"type": "websocket.accept", "subprotocol": subprotocol})
            receiving = asyncio.create_task(self._receive_all(), name="receiving")
            sending = asyncio.create_task(self._send_all(), name="sending")
            tasks += receiving, sending
            ends: set[asyncio.Future[Any]] = {receiving, self._cut}
            await asyncio.wait(ends | {sending}, return_when=asyncio.FIRST_COMPLETED)
            if not self._cut.done():  # the last message may be sent: the client has time to close
                timeout_s = self._settings.close_timeout_s
                await asyncio.wait(ends, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                is_clean = receiving.result()
        finally:
            self.is_open = False
            for task in tasks:
                task.cancel()
            self._connections.discard(self)
            self.gone.set_result(None)
            if self._listener is not None:
                self._listener.lost(is_clean)
                self._listener = None
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _receive_all(self) -> bool:
        """Passes the client's messages on until it is gone; returns whether it used a closing handshake."""
        taken = 0
        while True:
            await self.released()
            event = await self._receive()
            if event["type"] == "websocket.disconnect":
                return is_clean_end(event)
            data = event.get("bytes")
            if data is None:
                data = event["text"]
            if not data or isinstance(data, str):  # the rate of all but payload is limited
                if wait_s := self._pace.wait_s():
                    await asyncio.sleep(wait_s)
                self._pace.spend()
            if self._listener is None:
                return False
            hand_on(data, self._listener, self._settings.max_message_bytes)
            taken += 1
            if taken % TURN_MESSAGES == 0:
                await asyncio.sleep(0)

    async def _send_all(self) -> None:
        """Sends until the closing handshake has started or the client is gone; cuts a client that takes nothing."""
        timeout_s = self._settings.send_timeout_s
        event: AsgiMessage = {"type": ""}
        try:
            while event["type"] != "websocket.close":
                event = await self._unsent.get()
                async with asyncio.timeout(timeout_s):
                    await self._send(event)
                self._take_off(event)
        except TimeoutError:
            _log.warning("a client has read nothing for %.0f s: disconnecting it", timeout_s)
            self.abort()
        except OSError:  # the client is gone, which `receive` reports too
            self.is_open = False

    def _put(self, event: AsgiMessage, size: int) -> None:
        self._unsent.put_nowait(event)
        self._unsent_bytes += size + MESSAGE_BYTES

    def _take_off(self, event: AsgiMessage) -> None:
        """Counts sent bytes, and tells the session when there is room again."""
        was_writable = self.is_writable
        self._unsent_bytes -= len(event.get("bytes") or event.get("text") or b"") + MESSAGE_BYTES
        if self.is_writable and not was_writable and self._listener is not None:
            self._listener.writable()


def is_clean_end(event: AsgiMessage) -> bool:
    """Whether a disconnect is the client's closing handshake.

    uvicorn reports 1005 for a lost connection too, but without a reason. hypercorn reports 1006 for every end, so there
    sessions also wait for their clients after a clean one.
    """
    code = event.get("code", NO_STATUS)
    return code not in (LOST, RESTART) and (code != NO_STATUS or "reason" in event)
