"""A PUBLISH as server and client see it, independent of the MQTT library."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BrokerMessage:
    """A PUBLISH, received or to be sent.

    `expires_s`: how long the broker keeps it for absent subscribers. `content_type` and `rate` describe the payload.
    """

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    reply_topic: str | None = None
    correlation: bytes | None = None
    expires_s: int | None = None
    content_type: str | None = None
    rate: int | None = None
