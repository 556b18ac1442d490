"""One session at a broker, on a connection of its own whose identifier is the session's.

A broker allows one connection for each identifier, so a session always has one owner, and the next owner inherits what
the broker keeps under that identifier (subscriptions, QoS 1 frames that were not taken). The connection's last will is
the status that announces the session as lost; the Bridge decides who continues it.

For the session, this class is its Transport (sessions/transport.py).
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from enum import Enum, auto
from functools import partial

from neucodec_streaming.errors import InputError, StreamingError
from neucodec_streaming.protocol.messages import ClientMessage, End, Failure, ServerMessage
from neucodec_streaming.protocol.mqtt.message import BrokerMessage
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
    is_hermes,
    parse_request,
    topic,
)
from neucodec_streaming.protocol.mqtt.translation import Answer, OutputFrame, Translation
from neucodec_streaming.protocol.query import SessionRequest
from neucodec_streaming.server.auth.gate import Caller
from neucodec_streaming.server.lifecycle import moved
from neucodec_streaming.server.mqtt.broker import BrokerConnection, BrokerLost
from neucodec_streaming.server.sessions.session import RESTART_STATUS
from neucodec_streaming.server.sessions.transport import HoldableTransport, SessionHandler, check_size

KEPT_S = 60
"""How long the broker keeps the state of a session without owner, and its last status."""
STATUS_EXPIRES_S = 30
STATUS_INTERVAL_S = 10.0
LOSS_INTERVAL_S = 1.0
LEAVING_S = 30.0
"""A client whose connection was lost counts as gone after this silence."""
VERDICT_S = 60.0
"""How long a session whose connection was lost waits for the Bridge to decide its ownership."""
RETRY_S = 0.1
MAX_UNSENT = 64
"""Limit of queued frames and answers; beyond it the session is not stepped."""

_log = logging.getLogger(__name__)


Open = Callable[[SessionRequest, Caller], SessionHandler]
"""Opens a session in the server. Raises StreamingError."""
Connect = Callable[..., BrokerConnection]
"""Identifier; `will`, `clean_start` and `frames_topic` as in BrokerConnection -> a connection whose state is kept."""


class BrokerPhase(Enum):
    """CONNECTING: to the broker. SERVING: connected. LOST: waiting for the Bridge to decide the ownership. LEAVING:
    sending the queue, then the session's last status.
    """

    CONNECTING = auto()
    SERVING = auto()
    LOST = auto()
    LEAVING = auto()


_PHASES = {
    BrokerPhase.CONNECTING: frozenset({BrokerPhase.SERVING, BrokerPhase.LOST, BrokerPhase.LEAVING}),
    BrokerPhase.SERVING: frozenset({BrokerPhase.LOST, BrokerPhase.LEAVING}),
    BrokerPhase.LOST: frozenset({BrokerPhase.CONNECTING, BrokerPhase.LEAVING}),
    BrokerPhase.LEAVING: frozenset(),
}


class BrokerSession(HoldableTransport):
    """Runs the session `name` until it ends. `position`: that of its first input; None if another bridge lost the
    session.

    `on_replaced` is called when a client opens the session again. Raises StreamingError if there is no room for it.
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
        max_message_bytes: int,
    ) -> None:
        super().__init__()
        self._control_topic = topic(name, CONTROL)
        self._input_topic, output_topic = request.input_topic(name), request.output_topic(name)
        self._handler = open(request.session, Caller(None, f"mqtt:{name}"))  # after all checks: it takes a place
        request = replace(request, target=self._handler.request.target)  # the next owner keeps the output's rate
        self.name = name
        self._request = request
        self._reply = reply
        self._lost = Status(SessionStatus.LOST, bridge, request, reply)
        self._connect = connect
        self._on_replaced = on_replaced
        self._starts_anew = position is not None
        self._max_message_bytes = max_message_bytes
        self._translation = Translation(request, reply, random.randrange(SOURCES), position)
        self._input_type = content_type(request.session.input)
        output = request.session.output
        is_audio = output.kind == "audio"  # for tokens, a description would be longer than the payload
        self._frame_message = partial(
            BrokerMessage,
            output_topic,
            qos=request.qos,
            content_type=content_type(output) if is_audio else None,
            rate=output.rate if is_audio else None,
        )
        self._phase = BrokerPhase.CONNECTING
        self._left_out_for = ""
        self._outbox: deque[OutputFrame | Answer] = deque()
        self._wake = asyncio.Event()  # for the writer
        self._connection: BrokerConnection | None = None
        self._connected = asyncio.Event()
        self._news = asyncio.Event()  # for the status
        self._decision: asyncio.Future[bool] | None = None  # whether the session is still ours, when LOST
        self._grace: asyncio.TimerHandle | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._final = SessionStatus.CLOSED

    async def run(self) -> None:
        """Serves the session until it is over and its last status is published."""
        self._handler.opened(self)
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
            self._handler.lost(True)

    def decide(self, goes_on: bool) -> None:
        """Continues a session whose connection was lost, if it still belongs to this bridge."""
        if self._decision is not None and not self._decision.done():
            self._decision.set_result(goes_on)

    # As the session's transport

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._phase is not BrokerPhase.LEAVING

    @property
    def is_writable(self) -> bool:
        """Whether more can be sent."""
        return len(self._outbox) < MAX_UNSENT

    def send(self, message: bytes | ServerMessage) -> None:
        """Queues the publications of a message."""
        if isinstance(message, Failure):
            _log.warning("session %s of %s ends with an error: %s", self.name, self._input_topic, message.message)
        self._outbox.extend(self._translation.message(message))
        self._wake.set()

    def close(self, code: int, reason: str = "") -> None:
        """Ends the session after the queue has been sent; with RESTART_STATUS another bridge continues it."""
        if self.is_open:
            self._leave(SessionStatus.LOST if code == RESTART_STATUS else SessionStatus.CLOSED)

    def drop(self) -> None:
        """Ends the session now."""
        self._outbox.clear()
        self.close(1000)

    def _leave(self, final: str) -> None:
        self._phase = moved(_PHASES, self._phase, BrokerPhase.LEAVING)
        self._final = final
        self._wake.set()

    # From the broker

    async def _read(self) -> None:
        while True:
            connection = self._connect(
                f"neucodec-{self.name}",
                will=status_message(self.name, self._lost, KEPT_S),
                clean_start=self._starts_anew,
                frames_topic=self._input_topic,
            )
            self._decision = asyncio.get_running_loop().create_future()
            try:
                async with connection:
                    self._starts_anew = False
                    await connection.subscribe([self._input_topic, self._control_topic], 1)
                    self._connection = connection
                    self._advance(BrokerPhase.SERVING)
                    self._connected.set()
                    self._news.set()
                    async for message in connection.messages():
                        await self._take_in_turn(message)
            except BrokerLost as error:
                _log.info("session %s lost its connection to the broker: %s", self.name, error)
            self._advance(BrokerPhase.LOST)
            self._connected.clear()
            for message in connection.rest():
                await self._take_in_turn(message)
            if not await self._is_still_ours():
                _log.info("another bridge has taken over session %s", self.name)
                self._outbox.clear()
                if self.is_open:
                    self._leave(SessionStatus.OPEN)  # the new owner does
                return
            self._advance(BrokerPhase.CONNECTING)

    def _advance(self, phase: BrokerPhase) -> None:
        """Moves to `phase`; a session that is leaving keeps that phase even if its connection changes."""
        if self.is_open:
            self._phase = moved(_PHASES, self._phase, phase)

    async def _is_still_ours(self) -> bool:
        assert self._decision is not None, "made with the connection"
        try:
            async with asyncio.timeout(VERDICT_S):
                return await self._decision
        except TimeoutError:
            return False

    async def _take_in_turn(self, message: BrokerMessage) -> None:
        self._take(message)
        await self.released()

    def _take(self, message: BrokerMessage) -> None:
        position = self._translation.input_position
        if self._leaving is not None:
            self._leaving.cancel()
        if message.topic == self._control_topic:
            self._take_request(message)
        else:
            self._take_frame(message)
        self._await_missing(restart=self._translation.input_position != position)

    def _take_frame(self, message: BrokerMessage) -> None:
        said = message.content_type or self._input_type
        try:
            check_size(message.payload, self._max_message_bytes)
            if said != self._input_type and self._request.input is None:
                raise InputError(f"frame has content type {said}: the session expects {self._input_type}")
            if message.rate not in (None, self._translation.input.rate):
                raise InputError(f"frame at {message.rate} Hz: the session expects {self._translation.input.rate} Hz")
            self._converse(self._translation.frame(message.payload))
        except StreamingError as error:
            if not is_hermes(self._input_topic):
                self._handler.received(error)
            elif str(error) != self._left_out_for:  # a satellite's own frames are skipped; each reason is logged once
                self._left_out_for = str(error)
                _log.warning("session %s skips a message of %s: %s", self.name, self._input_topic, error)

    def _take_request(self, message: BrokerMessage) -> None:
        reply = reply_of(message)
        try:
            check_size(message.payload, self._max_message_bytes)
            request = parse_request(message.payload)
        except StreamingError as error:
            self._outbox.append(error_answer(error, reply))
            self._wake.set()
            return
        if isinstance(request.message, Gone):
            self._leaving = asyncio.get_running_loop().call_later(LEAVING_S, self._end)
        elif not isinstance(request.message, OpenRequest):
            self._converse(self._translation.request(request.message, request.position, reply))
        elif reply != self._reply:  # and not a repetition of its `open`
            self._on_replaced(self.name, request.message, reply, request.position)

    def _end(self) -> None:
        self._converse(self._translation.give_up())
        self._converse(self._translation.request(End(), None, Reply()))

    def _converse(self, messages: list[bytes | ClientMessage]) -> None:
        for message in messages:
            self._handler.received(message)

    def _await_missing(self, restart: bool) -> None:
        """Stops waiting for missing frames GRACE_S after the stream last advanced."""
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
                    await self._publish(self._frame_message(item.payload))
                elif item.reply.topic is not None:
                    await self._publish(answer_message(item, item.reply.topic))
                self._handler.writable()
            if self.is_open:
                self._wake.clear()
                await self._wake.wait()
        if self._final is not SessionStatus.OPEN:
            await self._tell(self._final)

    async def _publish(self, message: BrokerMessage) -> None:
        """Publishes, on the next connection if this one fails: with QoS 1 possibly twice, never not at all."""
        while True:
            await self._connected.wait()
            assert self._connection is not None, "connected"
            with suppress(BrokerLost):
                await self._connection.publish(message)
                return
            await asyncio.sleep(RETRY_S)

    async def _report(self) -> None:
        """Publishes the ownership and progress of the session: on every new connection, and soon after a loss."""
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
        stream, loss = self._translation, self._translation.loss.as_dict()
        status = replace(self._lost, state=state, input=stream.input_position, output=stream.output_position, loss=loss)
        await self._publish(status_message(self.name, status, STATUS_EXPIRES_S))


def reply_of(message: BrokerMessage) -> Reply:
    """Where to send the answer to a request."""
    return Reply(message.reply_topic, message.correlation)


def error_answer(error: StreamingError, reply: Reply) -> Answer:
    """Answers an impossible request."""
    return Answer(reply, encode_answer(Failure(error.code, str(error)), 0))


def status_message(name: str, status: Status, expires_s: int | None = None) -> BrokerMessage:
    """A session's status to be published, which the broker retains."""
    return BrokerMessage(topic(name, STATUS), status.encode(), retain=True, expires_s=expires_s)


def answer_message(answer: Answer, to: str) -> BrokerMessage:
    """An answer to be published."""
    return BrokerMessage(to, answer.payload, correlation=answer.reply.correlation)
