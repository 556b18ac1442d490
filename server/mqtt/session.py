"""One session at a broker: a connection of its own, whose identifier is the session's.

A broker lets one connection have an identifier, so a session has one owner, whatever happens; and what it keeps under
that identifier (subscriptions, frames with QoS 1 that nobody took) is inherited by the next owner. The last will of the
connection is the status that says that the session is lost; the Bridge decides who goes on with it.

Towards the session behind, this is its socket (sessions/session.py): `is_writable`, `send`, `hold`, `release`, `close`.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import aiomqtt
from paho.mqtt.packettypes import PacketTypes

from neucodec_streaming.errors import InputError, StreamingError
from neucodec_streaming.protocol.messages import End, Failure
from neucodec_streaming.protocol.mqtt.packets import SOURCES
from neucodec_streaming.protocol.mqtt.receiver import GRACE_S
from neucodec_streaming.protocol.mqtt.topics import (
    CONTROL,
    STATUS,
    Gone,
    OpenRequest,
    Reply,
    SessionStatus,
    Status,
    content_type,
    encode_answer,
    parse_request,
    topic,
)
from neucodec_streaming.protocol.mqtt.translation import Answer, OutputFrame, Translation
from neucodec_streaming.protocol.query import SessionRequest
from neucodec_streaming.server.auth.gate import Caller
from neucodec_streaming.server.mqtt.broker import Inbox, properties, published
from neucodec_streaming.server.sessions.session import RESTART_STATUS

KEPT_S = 60
"""What the broker keeps for a session that nobody has, and for how long others may learn what became of it."""
STATUS_EXPIRES_S = 30
STATUS_INTERVAL_S = 10.0
LOSS_INTERVAL_S = 1.0
LEAVING_S = 30.0
"""A client whose connection is lost has left when nothing is heard of it for so long."""
VERDICT_S = 60.0
"""A session whose connection is lost is kept so long for the Bridge to say whose it is."""
RETRY_S = 0.1
MAX_UNSENT = 64
"""Frames and answers that wait for the broker; with more, the session is stepped no further."""

_log = logging.getLogger(__name__)


class Conversation(Protocol):
    """What is behind: neucodec_streaming.server.sessions.session.Session."""

    def opened(self, socket: Any) -> None: ...
    def received(self, message: bytes | str) -> None: ...
    def writable(self) -> None: ...
    def lost(self, is_clean: bool) -> None: ...
    def fail(self, error: StreamingError) -> None: ...


Open = Callable[[SessionRequest, Caller], Conversation]
"""Gives a session its place. Raises StreamingError."""
Connect = Callable[[str, Inbox, aiomqtt.Will, bool], aiomqtt.Client]


class BrokerSession:
    """The session `name` until it ends: `run`. `position`: of its first input, None where another bridge has lost it.

    `on_replaced` is called when a client opens it anew. Raises StreamingError when there is no place for it.
    """

    def __init__(
        self,
        name: str,
        request: OpenRequest,
        reply: Reply,
        *,
        bridge: str,
        open: Open,
        connect: Connect,
        on_replaced: Callable[[str, OpenRequest, Reply, int | None], None],
        position: int | None,
    ) -> None:
        self.name = name
        self._request = request
        self._reply = reply
        self._bridge = bridge
        self._connect = connect
        self._on_replaced = on_replaced
        self._clean_start = position is not None
        self._translation = Translation(request, reply, random.randrange(SOURCES), position)
        self._topics = {kind: topic(name, kind) for kind in (CONTROL, STATUS)}
        self._input_topic, self._output_topic = request.input_topic(name), request.output_topic(name)
        self._content_type = content_type(request.session.input)
        self._output_properties = self._frame_properties()
        self._outbox: deque[OutputFrame | Answer] = deque()
        self._wake = asyncio.Event()
        self._client: aiomqtt.Client | None = None
        self._connected = asyncio.Event()
        self._lost = asyncio.Event()
        self._news = asyncio.Event()
        self._verdict: bool | None = None
        self._decided = asyncio.Event()
        self._grace: asyncio.TimerHandle | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self.is_held = False
        self._released = asyncio.Event()
        self._final = SessionStatus.CLOSED
        self.is_open = True
        self._conversation = open(request.session, Caller(None, f"mqtt:{name}"))

    async def run(self) -> None:
        """Serves the session until it is over and everybody has been told."""
        self._conversation.opened(self)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(call(), name=f"mqtt {self.name}") for call in (self._read, self._report)]
                await self._write()
                for task in tasks:
                    task.cancel()
        finally:
            for timer in (self._grace, self._leaving):
                if timer is not None:
                    timer.cancel()
            self._conversation.lost(True)

    def decide(self, goes_on: bool) -> None:
        """Whether a session whose connection is lost is still this bridge's."""
        self._verdict = goes_on
        self._decided.set()

    def hand_over(self) -> None:
        """Leaves the session to another bridge."""
        self.close(RESTART_STATUS)

    # What the session behind asks of its socket

    @property
    def is_writable(self) -> bool:
        """Whether more can be sent."""
        return len(self._outbox) < MAX_UNSENT

    def send(self, message: bytes | str) -> None:
        """Queues what a message means on the topics."""
        self._outbox.extend(self._translation.message(message))
        self._wake.set()

    def hold(self) -> None:
        """Takes no more from the broker until `release`."""
        self.is_held = True

    def release(self) -> None:
        """Takes on."""
        self.is_held = False
        self._released.set()

    def close(self, code: int, reason: str = "") -> None:
        """The session is over once what is queued has been sent."""
        self._final = SessionStatus.LOST if code == RESTART_STATUS else SessionStatus.CLOSED
        self.is_open = False
        self._wake.set()

    def drop(self) -> None:
        """The session is over now."""
        self._outbox.clear()
        self.close(1000)

    # From the broker

    async def _read(self) -> None:
        while True:
            inbox = Inbox(self._input_topic)
            self._verdict = None
            self._decided.clear()
            try:
                async with self._connect(self.name, inbox, self._will(), self._clean_start) as client:
                    self._clean_start = False
                    await client.subscribe([(self._input_topic, 1), (self._topics[CONTROL], 1)])
                    self._client, self._lost = client, asyncio.Event()
                    self._connected.set()
                    self._news.set()
                    async for message in client.messages:
                        await self._take_in_turn(message)
            except aiomqtt.MqttError as error:
                _log.info("session %s has lost its broker: %s", self.name, error)
            self._connected.clear()
            self._lost.set()
            while not inbox.empty():
                await self._take_in_turn(inbox.get_nowait())
            if not await self._is_still_ours():
                _log.info("session %s belongs to another bridge now", self.name)
                self._final = SessionStatus.OPEN  # that is what the other says
                self.drop()
                return

    async def _is_still_ours(self) -> bool:
        try:
            async with asyncio.timeout(VERDICT_S):
                await self._decided.wait()
        except TimeoutError:
            return False
        return bool(self._verdict)

    async def _take_in_turn(self, message: aiomqtt.Message) -> None:
        self._take(message)
        while self.is_held:
            self._released.clear()
            await self._released.wait()

    def _take(self, message: aiomqtt.Message) -> None:
        position = self._translation.input_position
        if self._leaving is not None:
            self._leaving.cancel()
        if str(message.topic) == self._topics[CONTROL]:
            self._take_request(message)
        else:
            self._take_frame(message)
        self._await_missing(restart=self._translation.input_position != position)

    def _take_frame(self, message: aiomqtt.Message) -> None:
        said = getattr(message.properties, "ContentType", self._content_type)
        try:
            if said != self._content_type and self._request.input is None:
                raise InputError(f"frame of {said}: the session takes {self._content_type}")
            self._converse(self._translation.frame(message.payload))
        except StreamingError as error:
            self._conversation.fail(error)

    def _take_request(self, message: aiomqtt.Message) -> None:
        reply = reply_of(message)
        try:
            request = parse_request(message.payload)
        except StreamingError as error:
            self._outbox.append(error_answer(error, reply))
            self._wake.set()
            return
        if isinstance(request.message, Gone):
            self._leaving = asyncio.get_running_loop().call_later(LEAVING_S, self._end)
        elif not isinstance(request.message, OpenRequest):
            self._converse(self._translation.request(request.message, request.position, reply))
        elif reply != self._reply:  # and no repeat of what opened it
            self._on_replaced(self.name, request.message, reply, request.position)

    def _end(self) -> None:
        self._converse(self._translation.give_up())
        self._converse(self._translation.request(End(), None, Reply()))

    def _converse(self, messages: list[bytes | str]) -> None:
        for message in messages:
            self._conversation.received(message)

    def _await_missing(self, restart: bool) -> None:
        """Gives up what is missing GRACE_S after the stream last went on."""
        if self._grace is not None and (restart or not self._translation.waits):
            self._grace.cancel()
            self._grace = None
        if self._grace is None and self._translation.waits:
            self._grace = asyncio.get_running_loop().call_later(GRACE_S, self._give_up)

    def _give_up(self) -> None:
        self._grace = None
        self._converse(self._translation.give_up())

    # To the broker

    async def _write(self) -> None:
        while self.is_open or self._outbox:
            while self._outbox:
                item = self._outbox.popleft()
                if isinstance(item, OutputFrame):
                    properties = self._output_properties
                    await self._publish(self._output_topic, item.payload, self._request.qos, properties=properties)
                elif item.reply.topic is not None:
                    await self._publish(item.reply.topic, item.payload, 1, properties=_correlated(item.reply))
                self._conversation.writable()
            if self.is_open:
                self._wake.clear()
                await self._wake.wait()
        if self._final is not SessionStatus.OPEN:
            await self._tell(self._final)

    async def _publish(self, to: str, payload: bytes, qos: int, retain: bool = False, properties: Any = None) -> None:
        """Publishes, on the next connection where this one fails: with QoS 1 perhaps twice, never not at all."""
        while True:
            await self._connected.wait()
            assert self._client is not None, "connected"
            if await published(self._client.publish(to, payload, qos, retain, properties), self._lost):
                return
            await asyncio.sleep(RETRY_S)

    async def _report(self) -> None:
        """Says that the session is this bridge's and how far it is: on every connection, and soon after a loss."""
        told: dict[str, int] = {}
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(STATUS_INTERVAL_S):
                    await self._news.wait()
            self._news.clear()
            await self._tell(SessionStatus.OPEN)
            told = self._translation.loss.as_dict()
            await asyncio.sleep(LOSS_INTERVAL_S)
            if {**self._translation.loss.as_dict(), "frames": 0} != {**told, "frames": 0}:
                self._news.set()

    async def _tell(self, state: str) -> None:
        translation = self._translation
        status = Status(
            state,
            self._bridge,
            self._request,
            self._reply,
            translation.input_position,
            translation.output_position,
            translation.loss.as_dict(),
        )
        expires = properties(PacketTypes.PUBLISH, MessageExpiryInterval=STATUS_EXPIRES_S)
        await self._publish(self._topics[STATUS], status.encode(), 1, True, expires)

    def _will(self) -> aiomqtt.Will:
        status = Status(SessionStatus.LOST, self._bridge, self._request, self._reply)
        expires = properties(PacketTypes.WILLMESSAGE, MessageExpiryInterval=KEPT_S)
        return aiomqtt.Will(self._topics[STATUS], status.encode(), 1, True, expires)

    def _frame_properties(self) -> Any:
        """Content type and rate of audio; tokens, whose frames are smaller than that, have theirs in the status."""
        output = self._request.session.output
        if output.kind == "tokens":
            return None
        rate = ("rate", str(output.rate))
        return properties(PacketTypes.PUBLISH, ContentType=content_type(output), UserProperty=rate)


def reply_of(message: aiomqtt.Message) -> Reply:
    """Where the answer to a request goes."""
    return Reply(
        getattr(message.properties, "ResponseTopic", None), getattr(message.properties, "CorrelationData", None)
    )


def error_answer(error: StreamingError, reply: Reply) -> Answer:
    """What whoever asked for the impossible is told."""
    return Answer(reply, encode_answer(Failure(error.code, str(error)), 0))


def _correlated(reply: Reply) -> Any:
    return properties(PacketTypes.PUBLISH, CorrelationData=reply.correlation)
