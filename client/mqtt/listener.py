"""A listener: `async for event in listener` yields one stream of a session from now on, independent of its sender."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from neucodec_streaming.client.dial import Deadlines
from neucodec_streaming.client.events import Audio, Tokens
from neucodec_streaming.client.mqtt.link import BrokerLink
from neucodec_streaming.client.mqtt.stream import Inbound, Missing, StreamReader, UtteranceEnded
from neucodec_streaming.errors import ConfigError, StreamingError
from neucodec_streaming.protocol.messages import OUTPUT_AUDIO, StreamFormat
from neucodec_streaming.protocol.messages import TOKENS as TOKEN_FORMAT
from neucodec_streaming.protocol.mqtt.address import BrokerAddress, parse_broker
from neucodec_streaming.protocol.mqtt.message import BrokerMessage
from neucodec_streaming.protocol.mqtt.receiver import Loss
from neucodec_streaming.protocol.mqtt.topics import (
    SPEECH,
    STATUS,
    TOKENS,
    SessionStatus,
    Status,
    audio_of,
    parse_status,
    topic,
)

_OVER = object()
"""Marks the end of a session after its last unit."""
STREAMS = {TOKENS: TOKEN_FORMAT, SPEECH: OUTPUT_AUDIO}


class Listener:
    """One stream of a session as Audio or Tokens, Missing and UtteranceEnded. Created by `listen`.

    `stream` is the format of the latest frame. The iteration ends when the session has ended and all its output has
    arrived or is lost. `loss` counts the losses of this listener's own link.
    """

    def __init__(self, name: str, stream: str) -> None:
        self.name = name
        self.stream = STREAMS[stream]
        self.status: Status | None = None
        self._topic, self._status_topic = topic(name, stream), topic(name, STATUS)
        self._inbound = Inbound()
        self._reader = StreamReader(self.stream, self._on_event)
        self._has_begun = False

    @property
    def loss(self) -> Loss:
        """Statistics of the stream."""
        return self._reader.loss

    def __aiter__(self) -> AsyncIterator[Audio | Tokens | Missing | UtteranceEnded]:
        return self

    async def __anext__(self) -> Audio | Tokens | Missing | UtteranceEnded:
        """The next event. Raises Disconnected when the broker is gone for good."""
        event = await self._inbound.next(None)
        if event is None:
            raise StopAsyncIteration
        return event

    def link_to(self, broker: BrokerAddress, qos: int, deadlines: Deadlines) -> BrokerLink:
        """A link that delivers the stream and the session's status."""
        return BrokerLink(
            broker,
            [(self._topic, qos), (self._status_topic, 1)],
            on_message=self.on_message,
            on_failure=self._inbound.finish,
            deadlines=deadlines,
        )

    def on_message(self, message: BrokerMessage) -> None:
        """Accepts a frame or the status."""
        try:
            if message.topic == self._status_topic:
                self._on_status(parse_status(message.payload))
            else:
                self._follow(audio_of(message.content_type, message.rate) or self.stream)
                self._reader.receive(message.payload)
        except StreamingError as error:
            self._inbound.finish(error)

    def _follow(self, stream: StreamFormat) -> None:
        """Reads frames of that format, which may change when another client opens the session."""
        if stream != self.stream:
            self._reader.close()
            self.stream, self._reader = stream, StreamReader(stream, self._on_event, loss=self.loss)

    def _on_status(self, status: Status) -> None:
        self.status = status
        self._has_begun |= status.state == SessionStatus.OPEN
        if self._has_begun and status.state == SessionStatus.CLOSED:
            is_output = status.request.output_topic(self.name) == self._topic
            self._reader.put(_OVER, status.output if is_output else self._reader.position)

    def _on_event(self, event: Any) -> None:
        if event is _OVER:
            self._inbound.finish()
        else:
            self._inbound.add(event)

    def close(self) -> None:
        """The stream has ended."""
        self._reader.close()
        self._inbound.finish()


@asynccontextmanager
async def listen(
    broker: str | BrokerAddress, name: str, stream: str = TOKENS, *, qos: int = 1, deadlines: Deadlines | None = None
) -> AsyncIterator[Listener]:
    """Listens to a session's `tokens` or `speech`. Raises ConfigError, Unreachable."""
    if stream not in STREAMS:
        raise ConfigError(f"stream {stream!r} is unknown: choose one of {', '.join(STREAMS)}")
    listener = Listener(name, stream)
    address = parse_broker(broker) if isinstance(broker, str) else broker
    async with listener.link_to(address, qos, deadlines or Deadlines()).opened():
        try:
            yield listener
        finally:
            listener.close()
