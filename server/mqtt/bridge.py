"""The bridge: serves sessions on the topics of a broker, together with other bridges.

Shared subscriptions deliver each `open` request and each lost session to one bridge, which owns the session before its
frames flow (the connection of its BrokerSession proves it). Every bridge also receives every status, and so knows the
owner of each session. When a bridge dies, the last wills of its sessions announce them as lost.
"""

import asyncio
import logging
import random
import uuid
from collections.abc import Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

from neucodec_streaming.errors import ConfigError, StreamingError
from neucodec_streaming.protocol.mqtt.address import BrokerAddress, parse_broker
from neucodec_streaming.protocol.mqtt.message import BrokerMessage
from neucodec_streaming.protocol.mqtt.topics import (
    CONTROL,
    HERMES_INPUT,
    ROOT,
    STATUS,
    OpenRequest,
    Reply,
    SessionStatus,
    Status,
    encode_open,
    hermes_topic,
    is_hermes,
    parse_request,
    parse_status,
    session_of,
    topic,
)
from neucodec_streaming.server.mqtt.broker import BrokerConnection, BrokerLost
from neucodec_streaming.server.mqtt.session import (
    KEPT_S,
    STATUS_EXPIRES_S,
    BrokerSession,
    Open,
    answer_message,
    error_answer,
    reply_of,
    status_message,
)
from neucodec_streaming.server.sessions.session import RESTART_STATUS
from neucodec_streaming.server.settings.fields import DEFAULT_MAX_MESSAGE_BYTES, Settings

SHARE = "$share/neucodec"
TAKE_OVER_S = 0.2
"""Delay between a last will and the takeover, in which a newer status may arrive."""
MIN_WAIT_S, MAX_WAIT_S = 0.1, 5.0
"""Delay between attempts to connect: doubles each time, with jitter."""
ASK_AGAIN_S = 3.0
"""Delay between requests for the session of a site that sends audio without one."""

_log = logging.getLogger(__name__)


def broker_address(settings: Settings) -> BrokerAddress:
    """The broker address from the settings. Raises ConfigError."""
    assert settings.mqtt is not None, "the caller must check `settings.mqtt`"
    address = parse_broker(settings.mqtt, settings.mqtt_ca, settings.mqtt_cert, settings.mqtt_key)
    if address.username is not None:
        raise ConfigError(
            "the mqtt URL contains credentials, which process lists show: use mqtt_username and mqtt_password instead"
        )
    return replace(address, username=settings.mqtt_username, password=settings.mqtt_password)


class Bridge:
    """The bridge at one broker; `open` opens a session in the server. `hermes_sites`: satellites that get a session
    unasked.
    """

    def __init__(
        self,
        address: BrokerAddress,
        open: Open,
        hermes_sites: tuple[str, ...] = (),
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    ) -> None:
        self.name = uuid.uuid4().hex[:12]
        self.connected = asyncio.Event()
        """Set while the broker is connected and sessions can be opened."""
        self._address = address
        self._tls = address.tls_context()
        self._open = open
        self._max_message_bytes = max_message_bytes
        self._sites = {site: hermes_topic(site, HERMES_INPUT) for site in hermes_sites}
        self._ask_again_s: dict[str, float] = {}
        self._statuses: dict[str, tuple[Status, float]] = {}  # and the time of its arrival
        self._sessions: dict[str, tuple[BrokerSession, asyncio.Task[None]]] = {}
        self._claims: set[asyncio.Task[None]] = set()
        self._connection: BrokerConnection | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def sessions(self) -> list[str]:
        """Names of the sessions that this bridge owns."""
        return list(self._sessions)

    def start(self) -> None:
        """Connects, and reconnects after each loss, until `stop`."""
        self._task = asyncio.create_task(self._run(), name="mqtt bridge")

    async def stop(self, timeout_s: float) -> None:
        """Leaves the sessions to other bridges and disconnects."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=timeout_s)
        tasks = [task for _, task in self._sessions.values()]
        for session, _ in self._sessions.values():
            session.close(RESTART_STATUS)
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
        for task in [*tasks, *self._claims]:
            task.cancel()

    async def _run(self) -> None:
        attempt = 0
        while True:
            connection = BrokerConnection(self._address, self._tls, f"neucodec-bridge-{self.name}")
            try:
                async with connection:
                    self._connection, attempt = connection, 0
                    await self._look_around(connection)
                    self.connected.set()
                    async for message in connection.messages():
                        self._take(message)
            except BrokerLost as error:
                _log.warning("no connection to the broker at %s: %s", self._address, error)
            self.connected.clear()
            await asyncio.sleep(min(MIN_WAIT_S * 2**attempt, MAX_WAIT_S) * random.uniform(0.5, 1.5))
            attempt = min(attempt + 1, 10)

    async def _look_around(self, connection: BrokerConnection) -> None:
        """Reads the retained statuses, then decides which sessions here continue, and offers the lost ones."""
        self._statuses.clear()
        await connection.subscribe([f"{ROOT}/+/{STATUS}"], 0, keeps_retain=True)
        marker = f"{ROOT}/bridge-{self.name}/{CONTROL}"
        await connection.subscribe([marker], 0)
        await connection.publish(BrokerMessage(marker, b"", 0))
        async for message in connection.messages():  # arrives after all retained ones
            if message.topic == marker:
                break
            self._take(message)
        for name, (session, _) in self._sessions.items():
            status = self._status(name)
            if status is None or status.bridge == self.name:
                session.decide(True)
        await connection.subscribe([f"{SHARE}/{ROOT}/+/{name}" for name in (CONTROL, STATUS)], 1)
        for name, (status, _) in list(self._statuses.items()):
            if status.state == SessionStatus.LOST:
                self._claim(self._offer(name))
        for site in self._sites:
            self._ask_for(site)
        if self._sites:
            await connection.subscribe([f"{SHARE}/{source}" for source in self._sites.values()], 0)

    def _ask_for(self, site: str) -> None:
        """Requests a session for a site, unless a bridge has it or it was requested just now."""
        now = asyncio.get_running_loop().time()
        is_served = site in self._sessions or self._status(site) is not None
        if not is_served and now >= self._ask_again_s.get(site, 0.0):
            self._ask_again_s[site] = now + ASK_AGAIN_S
            request = encode_open(OpenRequest("/v1/encode", input=self._sites[site]))
            self._claim(self._publish(BrokerMessage(topic(site, CONTROL), request, correlation=site.encode())))

    def _take(self, message: BrokerMessage) -> None:
        name = session_of(message.topic)
        if is_hermes(message.topic):
            self._ask_for(name)
        elif message.topic.endswith(STATUS):
            self._take_status(name, message)
        else:
            self._take_request(name, message)

    def _take_status(self, name: str, message: BrokerMessage) -> None:
        try:
            status = parse_status(message.payload)
        except StreamingError as error:
            _log.debug("status of %s: %s", name, error)
            return
        if not message.retain:  # shared subscription: no other bridge received it
            if status.state == SessionStatus.LOST:
                self._claim(self._take_over(name, status))
            return
        self._statuses[name] = status, asyncio.get_running_loop().time()
        if status.state == SessionStatus.LOST and self.connected.is_set():
            self._claim(self._offer(name))
        if status.state == SessionStatus.OPEN and status.bridge != self.name and name in self._sessions:
            self._sessions[name][0].decide(False)

    def _take_request(self, name: str, message: BrokerMessage) -> None:
        reply = reply_of(message)
        try:
            request = parse_request(message.payload)
        except StreamingError as error:
            if name not in self._sessions and self._status(name) is None:  # or its owner answers
                self._claim(self._refuse(error, reply))
            return
        status = self._status(name)
        is_owned = name in self._sessions or (status is not None and status.state == SessionStatus.OPEN)
        if isinstance(request.message, OpenRequest) and not is_owned:
            self._begin(name, request.message, reply, request.position)

    async def _offer(self, name: str) -> None:
        """Offers a lost session that no bridge has taken (a dying bridge cannot) to one of the present bridges."""
        await asyncio.sleep(random.uniform(2, 4) * TAKE_OVER_S)  # another bridge may do so, and one suffices
        status = self._status(name)
        if status is not None and status.state == SessionStatus.LOST:
            await self._publish(status_message(name, status, KEPT_S))

    async def _take_over(self, name: str, lost: Status) -> None:
        """Takes over a session whose owner is gone, unless a newer status says otherwise."""
        if name in self._sessions:
            self._sessions[name][0].decide(True)
            return
        await asyncio.sleep(TAKE_OVER_S)
        status = self._status(name)
        if name not in self._sessions and (status is None or status.state == SessionStatus.LOST):
            _log.info("taking over session %s from bridge %s", name, lost.bridge)
            if not self._begin(name, lost.request, lost.reply, None):
                closed = replace(lost, state=SessionStatus.CLOSED)
                await self._publish(status_message(name, closed))

    def _begin(self, name: str, request: OpenRequest, reply: Reply, position: int | None) -> bool:
        """Opens the session, or answers the request with the refusal."""
        try:
            session = BrokerSession(
                name,
                request,
                reply,
                bridge=self.name,
                open=self._open,
                connect=partial(BrokerConnection, self._address, self._tls, expiry_s=KEPT_S),
                on_replaced=self._replace,
                position=position,
                max_message_bytes=self._max_message_bytes,
            )
        except StreamingError as error:
            if request.input is not None and is_hermes(request.input):
                _log.warning("cannot open a session for site %s: %s", name, error)
            self._claim(self._refuse(error, reply))
            return False
        task = asyncio.create_task(self._serve(session), name=f"mqtt session {name}")
        self._sessions[name] = session, task
        return True

    async def _serve(self, session: BrokerSession) -> None:
        try:
            await session.run()
        except Exception:
            _log.exception("session %s failed", session.name)
        finally:
            if self._sessions.get(session.name, (None, None))[0] is session:
                del self._sessions[session.name]

    def _replace(self, name: str, request: OpenRequest, reply: Reply, position: int | None) -> None:
        """A client opens a session that is already open: its previous client is gone."""
        self._sessions[name][1].cancel()
        self._begin(name, request, reply, position)

    async def _refuse(self, error: StreamingError, reply: Reply) -> None:
        if reply.topic is not None:
            await self._publish(answer_message(error_answer(error, reply), reply.topic))

    async def _publish(self, message: BrokerMessage) -> None:
        if self._connection is not None:
            await self._connection.publish(message)

    def _status(self, name: str) -> Status | None:
        """The latest status of an unfinished session; None if unknown or too old."""
        status, heard_s = self._statuses.get(name, (None, 0.0))
        if status is None or status.state == SessionStatus.CLOSED:
            return None
        expires_s = STATUS_EXPIRES_S if status.state == SessionStatus.OPEN else KEPT_S
        return status if asyncio.get_running_loop().time() - heard_s < expires_s else None

    def _claim(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._tried(work), name="mqtt claim")
        self._claims.add(task)
        task.add_done_callback(self._claims.discard)

    async def _tried(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except BrokerLost as error:
            _log.debug("lost the connection to the broker: %s", error)
