"""A PUBLISH as server and client see it, independent of the MQTT library."""

from dataclasses import dataclass
from typing import Any, Self

MAX_RATE_DIGITS = 6


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

    @classmethod
    def received(cls, topic: str, payload: bytes, qos: int, retain: bool, properties: Any) -> Self:
        """A message that a library received; `properties` has the MQTT 5 properties as attributes."""
        reply_topic, correlation, content_type = (
            getattr(properties, name, None) for name in ("ResponseTopic", "CorrelationData", "ContentType")
        )
        said = dict(getattr(properties, "UserProperty", ())).get("rate", "")
        rate = int(said) if said.isascii() and said.isdecimal() and len(said) <= MAX_RATE_DIGITS else None
        return cls(topic, payload, qos, retain, reply_topic, correlation, content_type=content_type, rate=rate)

    @property
    def properties(self) -> dict[str, Any]:
        """The message's MQTT 5 properties by name; None for those that it lacks."""
        return {
            "ResponseTopic": self.reply_topic,
            "CorrelationData": self.correlation,
            "MessageExpiryInterval": self.expires_s,
            "ContentType": self.content_type,
            "UserProperty": None if self.rate is None else ("rate", str(self.rate)),
        }
