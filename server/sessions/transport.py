"""The seam between a transport (WebSocket, MQTT) and a session: what each offers the other."""

from typing import Protocol as Interface


class Transport(Interface):
    """A connection, as its session sees it."""

    is_writable: bool
    is_held: bool

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""

    def send(self, message: bytes | str) -> None:
        """Sends a message; look at `is_open` and `is_writable` first."""

    def close(self, code: int, reason: str = "") -> None:
        """Begins to end the connection."""

    def drop(self) -> None:
        """Cuts the connection and calls its listener no more."""

    def hold(self) -> None:
        """Reads no more until `release`: the client is slowed down."""

    def release(self) -> None:
        """Reads on."""


class SessionHandler(Interface):
    """Whom a connection belongs to from the upgrade on. Every call comes from the event loop."""

    def opened(self, socket: Transport) -> None:
        """The upgrade is done: messages can be sent."""

    def received(self, message: bytes | str) -> None:
        """A message of the client. What it raises closes the connection with 1011."""

    def writable(self) -> None:
        """`is_writable` is true again."""

    def lost(self, is_clean: bool) -> None:
        """The connection is gone; `is_clean`: after the client's closing handshake. Nothing is called after this."""
