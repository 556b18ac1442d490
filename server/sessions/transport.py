"""The seam between a transport (WebSocket, ASGI, MQTT) and a session: what each offers the other, in typed messages.

Payload is bytes, everything else a dataclass of protocol/messages.py; what they are on a wire is the transport's own
business. All calls come from the event loop, and a call may lead to calls in the other direction before it returns.
"""

from typing import Protocol as Interface

from neucodec_streaming.errors import MessageTooLarge, StreamingError
from neucodec_streaming.protocol.messages import ClientMessage, ServerMessage, parse_client_message


class Transport(Interface):
    """A connection, as its session sees it."""

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""

    @property
    def is_writable(self) -> bool:
        """Whether there is room for more; if not, `writable` is called once there is."""

    @property
    def is_held(self) -> bool:
        """Whether `hold` was called, and `release` not since."""

    def send(self, message: bytes | ServerMessage) -> None:
        """Sends a message; look at `is_open` and `is_writable` first."""

    def close(self, code: int, reason: str = "") -> None:
        """Begins to end the connection once what was sent is out; `code` is a status of RFC 6455."""

    def drop(self) -> None:
        """Cuts the connection and calls its session no more."""

    def hold(self) -> None:
        """Reads no more until `release`: the client is slowed down."""

    def release(self) -> None:
        """Reads on."""


class SessionHandler(Interface):
    """A session, as its connection sees it."""

    def opened(self, transport: Transport) -> None:
        """The connection is there: messages can be sent."""

    def received(self, message: bytes | ClientMessage) -> None:
        """Payload or a message of the client."""

    def fail(self, error: StreamingError) -> None:
        """What the client sent is no message, for that reason: the session ends, and the client is told."""

    def writable(self) -> None:
        """`is_writable` is true again."""

    def lost(self, is_clean: bool) -> None:
        """The connection is gone; `is_clean`: after the client's closing handshake. Nothing is called after this."""


def check_size(data: bytes | str, max_bytes: int) -> None:
    """Raises MessageTooLarge for a message that is longer than that, as it came over the wire."""
    if len(data) > max_bytes:
        raise MessageTooLarge(f"message of {len(data)} bytes: the limit is {max_bytes}, send smaller ones")


def hand_on(data: bytes | str, handler: SessionHandler, max_bytes: int) -> None:
    """Gives a session one WebSocket message; one that is invalid or too long ends it with the error."""
    try:
        check_size(data, max_bytes)
        message = data if isinstance(data, bytes) else parse_client_message(data)
    except StreamingError as error:
        handler.fail(error)
    else:
        handler.received(message)
