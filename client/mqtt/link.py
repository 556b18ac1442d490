"""A durable connection to a broker: reconnects after each loss, until it is closed or the deadline has passed.

The client's only module that imports aiomqtt and paho, with MQTT 5 throughout; its interface uses our own types.
`publish` waits for a connection and, with QoS 1, for the broker's acknowledgement; unacknowledged messages are sent
again on the next connection.
"""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, field
from logging import CRITICAL, getLogger
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from neucodec_streaming.client.dial import Deadlines
from neucodec_streaming.client.errors import DeadlineExceeded, Disconnected, Unreachable
from neucodec_streaming.errors import AuthError, StreamingError
from neucodec_streaming.protocol.mqtt.address import BrokerAddress
from neucodec_streaming.protocol.mqtt.message import BrokerMessage
from neucodec_streaming.proxies import proxy_for, shown

KEPT_S = 60
"""How long the broker keeps the state of a client whose connection is lost."""
KEEPALIVE_S = 10
ANSWER_S = 3.0
"""Timeout of the broker's answer to connect and subscribe: a broker that shuts down may accept a connection and stay
silent.
"""
MAX_QUEUED = 4096
"""Limit of queued messages; they are taken at once, so this bounds a single read."""
FIRST_PAUSE_S, MAX_PAUSE_S = 0.1, 3.0
"""Delay between attempts to connect: doubles each time, with jitter."""

NOT_LET_IN = (0x86, 0x87)
"""Reason codes of a CONNACK: bad user name or password, not authorized."""

_quiet = getLogger(f"{__name__}.aiomqtt")
_quiet.setLevel(CRITICAL)  # errors that matter are raised


@dataclass(eq=False, repr=False)
class BrokerLink:
    """Calls `on_message` with messages of `subscriptions` (topic, QoS), and `on_connected` after each connection.

    Used with `async with link.opened()`. `failure` is the error that ended it for good. Raises ConfigError.
    """

    address: BrokerAddress
    subscriptions: list[tuple[str, int]]
    _: KW_ONLY
    on_message: Callable[[BrokerMessage], None]
    on_connected: Callable[[], None] = lambda: None
    on_failure: Callable[[StreamingError], None]
    will: BrokerMessage | None = None
    deadlines: Deadlines
    failure: StreamingError | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._tls = self.address.tls_context()
        proxy = proxy_for(str(self.address))
        self._proxy = None if proxy is None else _proxy_settings(proxy)
        self._where = str(self.address) if proxy is None else f"{self.address}, through the proxy {shown(proxy)}"
        self._identifier = f"neucodec-client-{uuid.uuid4().hex[:12]}"
        self._client: aiomqtt.Client | None = None
        self._connected = asyncio.Event()
        self._lost = asyncio.Event()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        """Keeps the link connected until the context ends. Raises Unreachable, AuthError."""
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        running = asyncio.create_task(self._run(first), name="neucodec broker")
        try:
            await first
            yield self
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def publish(self, message: BrokerMessage) -> None:
        """Publishes on this connection or a later one. Raises DeadlineExceeded, or the error that ended the link."""
        while not await self.attempt(message):
            pass

    async def attempt(self, message: BrokerMessage) -> bool:
        """Publishes once; returns False if the connection was replaced meanwhile. Raises as `publish` does."""
        try:
            async with asyncio.timeout(self.deadlines.send_s):
                if self._connected.is_set() and self.failure is None:
                    assert self._client is not None, "connected"
                    publishing = self._client.publish(
                        message.topic,
                        message.payload,
                        message.qos,
                        properties=_properties(PacketTypes.PUBLISH, **message.properties),
                    )
                    if await _went_out(publishing, self._lost):
                        return True
                    await asyncio.sleep(FIRST_PAUSE_S)  # the loss may not have been noticed yet
                await self._connected.wait()
        except TimeoutError:
            raise DeadlineExceeded(f"the broker accepted no data for {self.deadlines.send_s:g} s") from None
        if self.failure is not None:
            raise self.failure
        return False

    async def _run(self, first: asyncio.Future[None]) -> None:
        """Keeps the connection; `first` gets the result of the first attempt."""
        loop = asyncio.get_running_loop()
        pause_s, lost_s = FIRST_PAUSE_S, loop.time()
        while True:
            inbox: asyncio.Queue[aiomqtt.Message] = asyncio.Queue(MAX_QUEUED)
            try:
                async with self._new_client(inbox, is_first=not first.done()) as client:
                    await client.subscribe(self.subscriptions)
                    self._client, self._lost = client, asyncio.Event()
                    self._connected.set()
                    pause_s = FIRST_PAUSE_S
                    if not first.done():
                        first.set_result(None)
                    self.on_connected()
                    async for message in client.messages:
                        self.on_message(_received(message))
            except aiomqtt.MqttError as error:
                if not first.done():
                    first.set_exception(self._refusal(error))
                    return
                if self._connected.is_set():
                    lost_s = loop.time()
                self._connected.clear()
                self._lost.set()
                if loop.time() - lost_s > self.deadlines.resume_s:
                    self._fail(Disconnected(f"the broker at {self.address} was lost: {error}"))
                    return
            while not inbox.empty():
                self.on_message(_received(inbox.get_nowait()))
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
            pause_s = min(2 * pause_s, MAX_PAUSE_S)

    def _refusal(self, error: aiomqtt.MqttError) -> StreamingError:
        code = getattr(getattr(error, "rc", None), "value", None)
        if code in NOT_LET_IN:
            return AuthError(f"the broker at {self.address} refused the login ({error}): check user and password")
        return Unreachable(f"no broker at {self._where}: {error}")

    def _fail(self, error: StreamingError) -> None:
        self.failure = error
        self._connected.set()
        self.on_failure(error)

    def _new_client(self, inbox: "asyncio.Queue[aiomqtt.Message]", is_first: bool) -> aiomqtt.Client:
        client = aiomqtt.Client(
            self.address.host,
            self.address.port,
            username=self.address.username,
            password=self.address.password,
            identifier=self._identifier,
            logger=_quiet,
            protocol=aiomqtt.ProtocolVersion.V5,
            queue_type=lambda maxsize: inbox,  # type: ignore[arg-type]
            keepalive=KEEPALIVE_S,
            clean_start=is_first,
            will=None if self.will is None else aiomqtt.Will(self.will.topic, self.will.payload, self.will.qos),
            properties=_properties(PacketTypes.CONNECT, SessionExpiryInterval=KEPT_S),
            tls_context=self._tls,
            timeout=ANSWER_S,
            proxy=self._proxy,
        )
        if self._proxy is None:
            client._client._get_proxy = lambda: None  # type: ignore[method-assign]  # paho has a rule of its own
        return client


async def _went_out(publishing: Coroutine[Any, Any, None], lost: asyncio.Event) -> bool:
    """Whether a message was sent before the connection was `lost`: aiomqtt itself keeps waiting for the
    acknowledgement.
    """
    tasks = [asyncio.ensure_future(publishing), asyncio.ensure_future(lost.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].done() and tasks[0].exception() is None
    finally:
        for task in tasks:
            task.cancel()


def _received(message: aiomqtt.Message) -> BrokerMessage:
    return BrokerMessage.received(str(message.topic), message.payload, message.qos, message.retain, message.properties)


def _properties(kind: int, **values: Any) -> Properties:
    """MQTT 5 properties by name; None values are omitted."""
    made = Properties(kind)
    for name, value in values.items():
        if value is not None:
            setattr(made, name, value)
    return made


def _proxy_settings(proxy: str) -> aiomqtt.ProxySettings:
    """A proxy for the MQTT library."""
    import socks

    split = urlsplit(proxy)
    assert split.hostname is not None, "proxy_for checks it"
    return aiomqtt.ProxySettings(
        proxy_type=socks.SOCKS4 if split.scheme.startswith("socks4") else socks.SOCKS5,
        proxy_addr=split.hostname,
        proxy_port=split.port,
        proxy_rdns=split.scheme in ("socks5h", "socks4a"),
        proxy_username=None if split.username is None else unquote(split.username),
        proxy_password=None if split.password is None else unquote(split.password),
    )
