"""A session over MQTT: `async with open_at_broker(...)`, then as with neucodec_streaming.client.connection.

    async with open_at_broker("mqtt://127.0.0.1", "kitchen", kind="encode") as session:
        await session.send(pcm); await session.end()
        async for event in session: ...

A bridge (`neucodec-server --mqtt`) serves the session; it may be replaced by another one while the session runs. Frames
are sent in order, with QoS 1 each acknowledged before the next, only while a bridge owns the session, and at most
AHEAD_FRAMES ahead of the output, since a bridge drops frames that exceed its queue.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import randrange
from typing import Any
from uuid import uuid4

import numpy as np

from neucodec_streaming.client.dial import Deadlines
from neucodec_streaming.client.errors import DeadlineExceeded, Unreachable, error_of
from neucodec_streaming.client.events import Audio, Tokens, units_of
from neucodec_streaming.client.mqtt.link import BrokerLink
from neucodec_streaming.client.mqtt.stream import Inbound, Missing, StreamReader, UtteranceEnded
from neucodec_streaming.client.payload import to_payload
from neucodec_streaming.client.session import LiveSession
from neucodec_streaming.errors import StreamingError
from neucodec_streaming.protocol.messages import (
    Cleared,
    ClientMessage,
    Done,
    End,
    Failure,
    Flushed,
    Marked,
    Prime,
    Primed,
    Ready,
    Stats,
    encode_message,
)
from neucodec_streaming.protocol.mqtt.address import BrokerAddress, parse_broker
from neucodec_streaming.protocol.mqtt.message import BrokerMessage
from neucodec_streaming.protocol.mqtt.packets import SOURCES, FrameWriter
from neucodec_streaming.protocol.mqtt.receiver import Loss
from neucodec_streaming.protocol.mqtt.topics import (
    CONTROL,
    GONE_PAYLOAD,
    STATUS,
    OpenRequest,
    SessionStatus,
    Status,
    content_type,
    encode_open,
    encode_request,
    parse_answer,
    parse_status,
    topic,
)
from neucodec_streaming.protocol.query import session_request

MAX_FRAME_SECONDS = 0.5
NO_ANSWER = b"-1"
"""Correlation of a request whose answer is ignored."""
AHEAD_FRAMES = 250
"""Limit of input in flight whose output has not been taken, in frames of 20 ms."""
REOPEN_S = 3.0
"""Interval of repeated `open` requests while no bridge owns the session."""
MqttEvent = Audio | Tokens | Missing | UtteranceEnded | Flushed | Cleared | Marked | Primed | Stats | Done


class MqttSession(LiveSession):
    """An open session, created by `open_at_broker`.

    `loss` counts the losses of the output, `status` is the latest status, which counts those of the input.
    """

    def __init__(self, name: str, request: OpenRequest, qos: int, deadlines: Deadlines) -> None:
        session = request.session
        self.name = name
        self.status: Status | None = None
        self.link: BrokerLink
        self._request = request
        self._qos = qos
        self._deadlines = deadlines
        self._input, self._output = session.input, session.output
        self._id = uuid4().hex[:12]
        self._answers_topic = topic(name, f"answers/{self._id}")
        redundancy = request.redundancy if session.input.kind == "tokens" else 0
        self._writer = FrameWriter(session.input.unit_bytes, randrange(SOURCES), redundancy)
        self._inbound = Inbound()
        self._reader = StreamReader(session.output, self._on_event, 0)
        self._ready: Ready | None = None
        self._is_ready = asyncio.Event()
        self._is_served = False  # a bridge owns the session
        self._news = asyncio.Event()  # the status changed
        self._asked: dict[int, tuple[ClientMessage, int]] = {}
        self._requests = 0
        self._voice: Prime | None = None  # the last one requested
        self._clears = 0  # number of clears: a `send` in progress belongs to an older utterance if it changes
        self._taken_frames = 0
        self._room = asyncio.Event()  # wakes waiting senders
        self._tasks: set[asyncio.Task[None]] = set()
        is_audio = self._input.kind == "audio"  # for tokens, it would be longer than the payload
        self._frame_type = content_type(self._input) if is_audio else None
        self._frame_rate = self._input.rate if is_audio else None

    @property
    def ready(self) -> Ready:
        """The bridge's `ready`."""
        assert self._ready is not None, "open_at_broker waits for it"
        return self._ready

    @property
    def loss(self) -> Loss:
        """Statistics of the output."""
        return self._reader.loss

    @property
    def input_position(self) -> int:
        """Samples or tokens sent."""
        return self._writer.position

    @property
    def output_position(self) -> int:
        """Position of the next sample or token to arrive."""
        return self._reader.position

    @property
    def is_over(self) -> bool:
        """Whether the session has ended."""
        return self._inbound.is_over

    def link_to(self, broker: BrokerAddress) -> BrokerLink:
        """The session's link; its last will ends the session if this client is gone for good."""
        output = (self._request.output_topic(self.name), self._request.qos)
        self.link = BrokerLink(
            broker,
            [output, (self._answers_topic, 1), (topic(self.name, STATUS), 1)],
            on_message=self.on_message,
            on_connected=lambda: self._note_served(False),  # waits for the owner's status, or requests the session
            on_failure=self._on_failure,
            will=BrokerMessage(topic(self.name, CONTROL), GONE_PAYLOAD),
            deadlines=self._deadlines,
        )
        return self.link

    async def send(self, chunk: np.ndarray) -> None:
        """Sends audio, float32 mono (n,) at `ready.input.rate`, or tokens (n,); waits for the broker and the bridge.

        A `clear` drops the unsent rest of a call in progress.
        """
        stream, clears = self._input, self._clears
        payload = to_payload(chunk, stream)
        step = int(stream.rate * MAX_FRAME_SECONDS) * stream.unit_bytes
        for start in range(0, len(payload), step):
            self._inbound.check()
            await self._until_room()
            if self._clears != clears:
                return
            frame = BrokerMessage(
                self._request.input_topic(self.name),
                self._writer.write(payload[start : start + step]),
                self._qos,
                content_type=self._frame_type,
                rate=self._frame_rate,
            )
            while not await self.link.attempt(frame):
                await self._until_room()  # the session's bridge may not be back yet

    async def clear(self) -> None:
        """Barge-in: drops pending input, here and at the bridge, and unsent output; nothing of the old utterance
        follows Cleared.
        """
        self._clears += 1
        self._room.set()
        await super().clear()

    async def __anext__(self) -> MqttEvent:
        """The next event, until Done. Raises the error of the bridge, Disconnected or DeadlineExceeded."""
        event = await self._inbound.next(self._deadlines.answer_s if self._asked else None)
        if event is None:
            raise StopAsyncIteration
        if isinstance(event, Audio | Tokens):
            self._note_taken((event.position + units_of(event).size) // self._output.hop)
        elif isinstance(event, Missing):
            self._note_taken(event.position // self._output.hop)
        elif isinstance(event, Cleared):
            self._note_taken(event.input // self._input.hop)
        return event

    async def opened(self) -> None:
        """Waits until a bridge owns the session. Raises the bridge's error, or Unreachable."""
        try:
            async with asyncio.timeout(self._deadlines.open_s):
                await self._is_ready.wait()
        except TimeoutError:
            raise Unreachable(
                f"no bridge answered session {self.name} within {self._deadlines.open_s:g} s: start one with"
                " `neucodec-server --mqtt URL`"
            ) from None
        self._inbound.check()

    async def watch(self) -> None:
        """Requests the session, and again after REOPEN_S without an owner."""
        is_asked_for = True
        while self.link.failure is None:
            if is_asked_for:
                await self._ask(encode_open(self._request, self._writer.position), self._id.encode())
            self._news.clear()
            try:
                async with asyncio.timeout(None if self._is_served else REOPEN_S):
                    await self._news.wait()
                is_asked_for = False
            except TimeoutError:
                is_asked_for = True

    def leave(self) -> None:
        """No output is expected any more."""
        self._inbound.finish()
        self._reader.close()
        for task in self._tasks:
            task.cancel()

    # What the link calls

    def _on_failure(self, error: StreamingError) -> None:
        """The link has ended for good."""
        self._inbound.finish(error)
        self._is_ready.set()
        self._room.set()

    def on_message(self, message: BrokerMessage) -> None:
        """Accepts frames, answers and the status."""
        try:
            if message.topic == self._answers_topic:
                self._on_answer(message)
            elif message.topic == topic(self.name, STATUS):
                self.status = parse_status(message.payload)
                self._note_served(self.status.state == SessionStatus.OPEN)
            else:
                self._reader.receive(message.payload)
        except StreamingError as error:
            self._on_failure(error)

    def _note_served(self, is_served: bool) -> None:
        self._is_served = is_served
        self._news.set()
        self._room.set()

    def _on_answer(self, message: BrokerMessage) -> None:
        answer, position = parse_answer(message.payload)
        if isinstance(answer, Failure):
            self._on_failure(error_of(answer.code, answer.message))
        elif isinstance(answer, Ready):
            self._note_served(True)
            is_first, self._ready = self._ready is None, answer
            if is_first:
                self._output, self._reader = answer.output, StreamReader(answer.output, self._on_event, 0)
            self._is_ready.set()
            if not is_first:  # a new bridge, which knows none of the requests
                self._spawn(self._ask_again())
        elif isinstance(answer, (Flushed, Cleared, Marked, Primed, Done)) and position is not None:
            number = int(message.correlation or NO_ANSWER)
            if number in self._asked:
                self._reader.put((number, answer), position)
        elif isinstance(answer, Stats):
            self._on_event(answer)

    def _on_event(self, event: Any) -> None:
        if isinstance(event, tuple):
            number, event = event
            if self._asked.pop(number, None) is None:
                return  # a repeated answer
            if isinstance(event, Cleared):
                self._asked = {n: asked for n, asked in self._asked.items() if n > number}
        self._inbound.add(event)
        if isinstance(event, Done):
            self._inbound.finish()

    # Requests

    async def _say(self, message: ClientMessage) -> None:
        self._inbound.check()
        number, position = self._requests, self._writer.position
        self._requests += 1
        self._asked[number] = message, position
        if isinstance(message, Prime):
            self._voice = message
        await self._ask(encode_request(message, position), str(number).encode())

    async def _ask(self, payload: bytes, correlation: bytes) -> None:
        await self.link.publish(
            BrokerMessage(topic(self.name, CONTROL), payload, reply_topic=self._answers_topic, correlation=correlation)
        )

    async def _ask_again(self) -> None:
        with suppress(StreamingError):
            if self._voice is not None:
                await self._ask(encode_request(self._voice, self._writer.position), NO_ANSWER)
            for number, (message, position) in list(self._asked.items()):
                await self._ask(encode_request(message, position), str(number).encode())

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work, name="neucodec requests")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # The pace

    async def _until_room(self) -> None:
        try:
            async with asyncio.timeout(self._deadlines.send_s):
                clears = self._clears
                while clears == self._clears and (not self._is_served or self._ahead_frames > AHEAD_FRAMES):
                    self._room.clear()
                    await self._room.wait()
                    self._inbound.check()
        except TimeoutError:
            why = (
                f"{self._ahead_frames} frames of input are ahead of the output that was taken: receive while you send"
                if self._is_served
                else "no bridge has the session"
            )
            raise DeadlineExceeded(f"no data could be sent for {self._deadlines.send_s:g} s: {why}") from None

    @property
    def _ahead_frames(self) -> int:
        return self._writer.position // self._input.hop - self._taken_frames

    def _note_taken(self, frames: int) -> None:
        self._taken_frames = max(self._taken_frames, frames)
        self._room.set()


@asynccontextmanager
async def open_at_broker(
    broker: str | BrokerAddress,
    name: str,
    *,
    kind: str = "encode",
    profile: str | None = None,
    output_rate: int | None = None,
    qos: int = 1,
    redundancy: int = 0,
    packet_frames: int = 0,
    input: str | None = None,
    output: str | None = None,
    deadlines: Deadlines | None = None,
) -> AsyncIterator[MqttSession]:
    """Opens the session `name` at a broker: any bridge serves it, and any number of listeners receive its output.

    `output_rate` of audio: None for the model's. `qos` of input and output: 1 exact, 0 lossy. `redundancy`: tokens that
    each token frame repeats; `packet_frames`: minimum number of tokens in a frame; `input`, `output`: other topics than
    the session's own (docs/mqtt.md). Raises ConfigError, CapacityError, or Unreachable if there is no broker or no
    bridge.
    """
    deadlines = deadlines or Deadlines()
    address = parse_broker(broker) if isinstance(broker, str) else broker
    target = session_request(kind, output_rate=output_rate, profile=profile).target
    session = MqttSession(name, OpenRequest(target, qos, redundancy, packet_frames, input, output), qos, deadlines)
    async with session.link_to(address).opened():
        watching = asyncio.create_task(session.watch(), name="neucodec watch")
        try:
            await session.opened()
            yield session
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            if session.link.failure is None and not session.is_over:
                with suppress(StreamingError, TimeoutError):
                    async with asyncio.timeout(deadlines.close_s):
                        await session.link.publish(BrokerMessage(topic(name, CONTROL), encode_message(End()).encode()))
            session.leave()
