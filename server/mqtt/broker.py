"""Connections to a broker with MQTT 5. The server's only module that imports aiomqtt and paho.

Its interface uses our own types: BrokerMessage, whose fields represent MQTT properties, and BrokerLost.
"""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from neucodec_streaming.protocol.mqtt.address import BrokerAddress
from neucodec_streaming.protocol.mqtt.message import BrokerMessage

MAX_FRAMES = 256
"""Limit of a session's queued frames; later ones are dropped, which their numbering reveals."""
MAX_MESSAGES = 1024
"""Limit of a connection's queued messages, requests included; later ones are dropped."""
KEEPALIVE_S = 5
"""The broker drops a connection after 1.5 keep-alives of silence (MQTT 5, 3.1.2.10)."""
ANSWER_S = 3.0
"""Timeout of the broker's answer to connect and subscribe: a broker that shuts down may accept a connection and stay
silent.
"""

_quiet = logging.getLogger(f"{__name__}.aiomqtt")
_quiet.setLevel(logging.CRITICAL)  # the caller logs errors that matter


class BrokerLost(Exception):
    """The broker is unreachable, or the connection to it was lost."""


class _Inbox(asyncio.Queue[aiomqtt.Message]):
    """Queue of received messages. Frames of `frames_topic` are dropped first."""

    def __init__(self, frames_topic: str | None) -> None:
        super().__init__(MAX_MESSAGES)
        self._frames_topic = frames_topic

    def put_nowait(self, item: aiomqtt.Message) -> None:
        """Called by aiomqtt, which expects QueueFull."""
        if self.qsize() >= MAX_FRAMES and str(item.topic) == self._frames_topic:
            raise asyncio.QueueFull
        super().put_nowait(item)


class BrokerConnection:
    """One connection, for the duration of `async with`; everything but `rest` may raise BrokerLost.

    The broker publishes `will` if the connection is lost. With `clean_start` False it resumes the session state that
    the broker kept under `identifier` for `expiry_s`. At most MAX_FRAMES messages of `frames_topic` are queued.
    """

    def __init__(
        self,
        address: BrokerAddress,
        tls: ssl.SSLContext | None,
        identifier: str,
        *,
        will: BrokerMessage | None = None,
        clean_start: bool = True,
        expiry_s: int = 0,
        frames_topic: str | None = None,
    ) -> None:
        self._inbox = _Inbox(frames_topic)
        self._lost = asyncio.Event()
        self._client = aiomqtt.Client(
            address.host,
            address.port,
            username=address.username,
            password=address.password,
            identifier=identifier,
            logger=_quiet,
            protocol=aiomqtt.ProtocolVersion.V5,
            queue_type=lambda maxsize: self._inbox,  # type: ignore[arg-type]
            keepalive=KEEPALIVE_S,
            clean_start=clean_start,
            will=None if will is None else _will(will),
            properties=_properties(PacketTypes.CONNECT, SessionExpiryInterval=expiry_s),
            tls_context=tls,
            timeout=ANSWER_S,
        )
        self._client._client._get_proxy = lambda: None  # type: ignore[method-assign]  # reached directly

    async def __aenter__(self) -> "BrokerConnection":
        try:
            await self._client.__aenter__()
        except aiomqtt.MqttError as error:
            raise BrokerLost(str(error)) from None
        return self

    async def __aexit__(self, *failure: object) -> None:
        self._lost.set()
        try:
            await self._client.__aexit__(None, None, None)
        except aiomqtt.MqttError as error:
            raise BrokerLost(str(error)) from None

    async def subscribe(self, topics: Sequence[str], qos: int, *, keeps_retain: bool = False) -> None:
        """Subscribes; returns when the broker has confirmed. `keeps_retain`: later retained messages are marked too."""
        options = SubscribeOptions(qos, retainAsPublished=keeps_retain)
        try:
            await self._client.subscribe([(topic, options) for topic in topics])
        except aiomqtt.MqttError as error:
            raise BrokerLost(str(error)) from None

    async def publish(self, message: BrokerMessage) -> None:
        """Publishes; returns when the message is sent, with QoS 1 when the broker has acknowledged it."""
        publishing = self._client.publish(
            message.topic,
            message.payload,
            message.qos,
            message.retain,
            _properties(PacketTypes.PUBLISH, **message.properties),
        )
        tasks = [asyncio.ensure_future(publishing), asyncio.ensure_future(self._lost.wait())]
        try:  # aiomqtt itself keeps waiting for the acknowledgement after the connection is lost
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not tasks[0].done() or isinstance(tasks[0].exception(), aiomqtt.MqttError):
                raise BrokerLost(f"{message.topic} was not published")
            tasks[0].result()
        finally:
            for task in tasks:
                task.cancel()

    async def messages(self) -> AsyncIterator[BrokerMessage]:
        """Incoming messages; ends only by BrokerLost."""
        try:
            async for message in self._client.messages:
                yield _received(message)
        except aiomqtt.MqttError as error:
            raise BrokerLost(str(error)) from None

    def rest(self) -> list[BrokerMessage]:
        """Messages that had arrived but were not taken when the connection was lost."""
        return [_received(self._inbox.get_nowait()) for _ in range(self._inbox.qsize())]


def _received(message: aiomqtt.Message) -> BrokerMessage:
    return BrokerMessage.received(str(message.topic), message.payload, message.qos, message.retain, message.properties)


def _will(message: BrokerMessage) -> aiomqtt.Will:
    expires = _properties(PacketTypes.WILLMESSAGE, MessageExpiryInterval=message.expires_s)
    return aiomqtt.Will(message.topic, message.payload, message.qos, message.retain, expires)


def _properties(kind: int, **values: Any) -> Properties:
    """MQTT 5 properties by name; None values are omitted."""
    made = Properties(kind)
    for name, value in values.items():
        if value is not None:
            setattr(made, name, value)
    return made
