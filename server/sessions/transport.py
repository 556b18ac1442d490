"""The interface between a transport (WebSocket, ASGI, MQTT) and a session, in typed messages.

Payload is bytes, everything else a dataclass of protocol/messages.py; the transport encodes them. All calls come from
the event loop, and a call may cause calls in the other direction before it returns.
"""

import asyncio
from typing import Protocol as Interface

from neucodec_streaming.errors import MessageTooLarge, StreamingError
from neucodec_streaming.protocol.messages import ClientMessage, ServerMessage, parse_client_message
from neucodec_streaming.protocol.query import SessionRequest


class Transport(Interface):
    """A connection, for its session."""

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""

    @property
    def is_writable(self) -> bool:
        """Whether there is room for more; if not, `writable` is called once there is."""

    @property
    def is_held(self) -> bool:
        """Whether input is held by `hold`."""

    def send(self, message: bytes | ServerMessage) -> None:
        """Sends a message; check `is_open` and `is_writable` first."""

    def close(self, code: int, reason: str = "") -> None:
        """Closes the connection after the sent messages; `code` is a status of RFC 6455."""

    def drop(self) -> None:
        """Cuts the connection and stops calling its session."""

    def hold(self) -> None:
        """Stops reading until `release`, which slows the client down."""

    def release(self) -> None:
        """Resumes reading."""


class HoldableTransport:
    """`hold` and `release` of a transport whose reading task awaits `released` before it passes a message on."""

    def __init__(self) -> None:
        self._released = asyncio.Event()
        self._released.set()

    @property
    def is_held(self) -> bool:
        """Whether input is held by `hold`."""
        return not self._released.is_set()

    def hold(self) -> None:
        """Stops reading until `release`, which slows the client down."""
        self._released.clear()

    def release(self) -> None:
        """Resumes reading."""
        self._released.set()

    async def released(self) -> None:
        """Waits until input is not held."""
        await self._released.wait()


class SessionHandler(Interface):
    """A session, for its connection. `request`: what it serves, with the model's rate where none was asked for."""

    request: SessionRequest

    def opened(self, transport: Transport) -> None:
        """The connection is open: messages can be sent."""

    def received(self, message: bytes | ClientMessage | StreamingError) -> None:
        """Accepts payload, a client's message, or the error of an invalid one, which ends the session in its turn."""

    def writable(self) -> None:
        """`is_writable` is true again."""

    def lost(self, is_clean: bool) -> None:
        """The connection is closed. `is_clean`: after the client's closing handshake. The last call."""


def check_size(data: bytes | str, max_bytes: int) -> None:
    """Raises MessageTooLarge for a message that exceeds the limit on the wire."""
    if len(data) > max_bytes:
        raise MessageTooLarge(f"message of {len(data)} bytes exceeds the limit of {max_bytes}: send smaller messages")


def hand_on(data: bytes | str, handler: SessionHandler, max_bytes: int) -> None:
    """Passes one WebSocket message to a session; an invalid or oversized one ends it with the error."""
    try:
        check_size(data, max_bytes)
        message = data if isinstance(data, bytes) else parse_client_message(data)
    except StreamingError as error:
        handler.received(error)
    else:
        handler.received(message)
