"""Connections to a broker: made by aiomqtt, MQTT 5 throughout. Its errors and properties stay at this border."""

import asyncio
import logging
import ssl
from collections.abc import Coroutine
from typing import Any

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from neucodec_streaming.errors import ConfigError
from neucodec_streaming.protocol.mqtt.address import BrokerAddress

MAX_FRAMES = 256
"""Frames of a session that wait to be taken: what comes beyond is dropped, and the frames' numbers tell."""
MAX_MESSAGES = 1024
"""Messages of one connection, requests among them, that wait to be taken; what comes beyond is dropped."""
KEEPALIVE_S = 5
"""A connection of which nothing is heard for one and a half of that is dead, for the broker too."""
ANSWER_S = 3.0
"""For the broker's answer to connect and subscribe: a broker that goes down may take the connection and say nothing."""

_quiet = logging.getLogger(f"{__name__}.aiomqtt")
_quiet.setLevel(logging.CRITICAL)  # what matters is told by whoever connects


class Inbox(asyncio.Queue[aiomqtt.Message]):
    """What a connection has received; whoever lost the connection takes the rest from here.

    `frames_topic`: of the messages that are dropped first.
    """

    def __init__(self, frames_topic: str | None = None) -> None:
        super().__init__(MAX_MESSAGES)
        self._frames_topic = frames_topic

    def put_nowait(self, item: aiomqtt.Message) -> None:
        """What aiomqtt calls; it expects QueueFull."""
        if self.qsize() >= MAX_FRAMES and str(item.topic) == self._frames_topic:
            raise asyncio.QueueFull
        super().put_nowait(item)


def tls_context(address: BrokerAddress) -> ssl.SSLContext | None:
    """What to connect with; None: without TLS. Raises ConfigError for files that cannot be used."""
    if not address.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=address.ca_file)
        if address.cert_file is not None:
            context.load_cert_chain(address.cert_file, address.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"the certificates for the broker cannot be used: {error}") from None
    return context


def broker_client(
    address: BrokerAddress,
    tls: ssl.SSLContext | None,
    identifier: str,
    inbox: Inbox,
    *,
    will: aiomqtt.Will | None = None,
    clean_start: bool = True,
    expiry_s: int = 0,
) -> aiomqtt.Client:
    """A client that `async with` connects. `clean_start` False goes on with what the broker has kept under `identifier`
    for `expiry_s` since that connection was lost."""
    return aiomqtt.Client(
        address.host,
        address.port,
        username=address.username,
        password=address.password,
        identifier=identifier,
        logger=_quiet,
        protocol=aiomqtt.ProtocolVersion.V5,
        queue_type=lambda maxsize: inbox,  # type: ignore[arg-type]
        keepalive=KEEPALIVE_S,
        clean_start=clean_start,
        will=will,
        properties=properties(PacketTypes.CONNECT, SessionExpiryInterval=expiry_s),
        tls_context=tls,
        timeout=ANSWER_S,
    )


def properties(kind: int, **values: Any) -> Properties:
    """MQTT 5 properties by their names; what is None is left out."""
    made = Properties(kind)
    for name, value in values.items():
        if value is not None:
            setattr(made, name, value)
    return made


async def published(publishing: Coroutine[Any, Any, None], lost: asyncio.Event) -> bool:
    """Whether a message went out before the connection was `lost`: aiomqtt itself waits on for the acknowledgement."""
    tasks = [asyncio.ensure_future(publishing), asyncio.ensure_future(lost.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].done() and tasks[0].exception() is None
    finally:
        for task in tasks:
            task.cancel()
