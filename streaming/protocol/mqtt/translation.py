"""Translates one session between its MQTT topics and the `neucodec.v1` conversation. Sans-I/O.

    frames and requests of the broker -> frame(), request(), give_up() -> messages for the conversation
    messages of the conversation      -> message()                    -> frames and answers for the broker

The conversation counts its own input and output; the topics share one time line. The output of an utterance whose input
starts at position I starts at the frame that contains I, so a new owner or a late listener knows where output belongs.
Short gaps of lost input are concealed; at a long gap the utterance ends and another starts after it.
"""

from collections import deque
from dataclasses import dataclass, field, replace

from neucodec_streaming.protocol.concealment import concealed
from neucodec_streaming.protocol.messages import (
    REQUEST_OF,
    AnswerMessage,
    Clear,
    Cleared,
    ClientMessage,
    Done,
    Flush,
    Mark,
    Marked,
    Prime,
    Primed,
    ServerMessage,
    encode_message,
)
from neucodec_streaming.protocol.mqtt.hermes import MAX_WAV_SECONDS, samples_of, wav_of
from neucodec_streaming.protocol.mqtt.packets import FrameWriter
from neucodec_streaming.protocol.mqtt.receiver import Loss, Piece, Receiver
from neucodec_streaming.protocol.mqtt.topics import (
    MAX_CONCEALED_FRAMES,
    OpenRequest,
    Reply,
    encode_answer,
    is_hermes,
)

MAX_HEARD = 256
"""Number of remembered requests, to detect repetitions."""


@dataclass(frozen=True)
class Answer:
    """A payload for the sender of a request."""

    reply: Reply
    payload: bytes


@dataclass(frozen=True)
class OutputFrame:
    """A payload for the output topic; `last` ends an utterance."""

    payload: bytes
    last: bool


@dataclass(frozen=True)
class _Asked:
    message: ClientMessage
    reply: Reply = field(default_factory=Reply)


class Translation:
    """The session that `request` opened; answers go to `reply`, and `source` numbers its output frames.

    `position`: that of the first input; None if another bridge had the session, which then continues at its next frame.
    """

    def __init__(self, request: OpenRequest, reply: Reply, source: int, position: int | None = 0) -> None:
        session = request.session
        self.input, self.output = session.input, session.output
        self._receiver = Receiver(self.input.unit_bytes, position)
        self._reply = reply
        redundancy = request.redundancy if self.output.kind == "tokens" else 0
        self._writer = FrameWriter(self.output.unit_bytes, source, redundancy, self._output_at(position or 0))
        self._has_place = position is not None  # the writer's position is that of the output
        self._satellite = FrameWriter(self.input.unit_bytes, 0) if is_hermes(request.input or "") else None
        self._plays_wav = is_hermes(request.output or "")
        least = MAX_WAV_SECONDS * self.output.rate if self._plays_wav else request.packet_frames * self.output.hop
        self._least_bytes = least * self.output.unit_bytes
        self._gathered = b""
        # Start of each utterance's output, oldest first; None until the utterance has input.
        self._starts: deque[int | None] = deque([None])
        self._asked: deque[_Asked] = deque()
        self._heard: deque[Reply] = deque(maxlen=MAX_HEARD)
        self._end: int | None = None  # end of the utterance's input so far, None before its first
        self._before = b""  # the last unit of that input

    @property
    def waits(self) -> bool:
        """Whether something waits for missing frames."""
        return self._receiver.waits

    @property
    def loss(self) -> Loss:
        return self._receiver.loss

    @property
    def input_position(self) -> int:
        """Position of the next input on the time line."""
        return self._receiver.position or 0

    @property
    def output_position(self) -> int:
        """Position of the next output on the time line."""
        return self._writer.position

    # From the broker

    def frame(self, data: bytes) -> list[bytes | ClientMessage]:
        """Accepts an input frame and returns messages for the conversation. Raises InputError."""
        if self._satellite is not None:
            data = self._satellite.write(samples_of(data, self.input))
        return self._translated(self._receiver.receive(data))

    def give_up(self) -> list[bytes | ClientMessage]:
        """Stops waiting for missing frames."""
        return self._translated(self._receiver.give_up())

    def request(self, message: ClientMessage, position: int | None, reply: Reply) -> list[bytes | ClientMessage]:
        """Accepts a request at a position of the input (None: now); a clear does not wait for its position.

        A repeated request (same correlation) is ignored: with QoS 1 the broker or the client may repeat it.
        """
        if reply.correlation is not None:
            if reply in self._heard:
                return []
            self._heard.append(reply)
        asked = _Asked(message, reply)
        at = self.input_position if position is None else position
        if not isinstance(message, Clear):
            return self._translated(self._receiver.put(asked, at))
        self._receiver.drop_until(at)
        return self._ask(asked)

    def _translated(self, items: list[Piece | _Asked]) -> list[bytes | ClientMessage]:
        messages: list[bytes | ClientMessage] = []
        for item in items:
            messages += self._piece(item) if isinstance(item, Piece) else self._ask(item)
        return messages

    def _piece(self, piece: Piece) -> list[bytes | ClientMessage]:
        messages: list[bytes | ClientMessage] = []
        if self._end is not None:
            is_gap = piece.position - piece.lost == self._end
            if not is_gap or piece.lost > MAX_CONCEALED_FRAMES * self.input.hop:
                messages += self._ask(_Asked(Flush()))
            elif piece.lost:
                messages.append(concealed(self.input, self._before, piece.lost, piece.payload))
                self._end = piece.position
        if piece.payload:
            if self._end is None:
                self._starts[-1] = self._output_at(piece.position)
            messages.append(piece.payload)
            self._before = piece.payload[-self.input.unit_bytes :]
            self._end = piece.position + len(piece.payload) // self.input.unit_bytes
        if piece.last and self._end is not None:
            messages += self._ask(_Asked(Flush()))
        return messages

    def _ask(self, asked: _Asked) -> list[bytes | ClientMessage]:
        self._asked.append(asked)
        if not isinstance(asked.message, (Mark, Prime)):
            self._starts.append(None)
            self._end, self._before = None, b""
        return [asked.message]

    # From the conversation

    def message(self, message: bytes | ServerMessage) -> list[OutputFrame | Answer]:
        """Accepts a message of the conversation and returns what to publish, in order."""
        if isinstance(message, bytes):
            return self._output(message)
        if isinstance(message, AnswerMessage):
            return self._answer(message)
        return _answer(self._reply, encode_message(message).encode())

    def _output(self, payload: bytes) -> list[OutputFrame | Answer]:
        if (start := self._starts[0]) is not None:
            self._writer.skip_to(start)
            self._starts[0], self._has_place = None, True
        self._gathered += payload
        return self._written() if len(self._gathered) >= self._least_bytes else []

    def _written(self, last: bool = False) -> list[OutputFrame | Answer]:
        payload, self._gathered = self._gathered, b""
        frame = self._writer.write(payload, last)
        if self._plays_wav:
            return [OutputFrame(wav_of(payload, self.output), last)] if payload else []
        return [OutputFrame(frame, last)]

    def _answer(self, message: AnswerMessage) -> list[OutputFrame | Answer]:
        for asked in self._asked:
            same_id = not isinstance(message, Marked) or asked.message == Mark(message.id)
            if type(asked.message) is REQUEST_OF[type(message)] and same_id:
                break
        outgoing: list[OutputFrame | Answer] = []
        if isinstance(message, (Marked, Primed)):
            outgoing += self._written() if self._gathered else []
            self._asked.remove(asked)
        else:
            self._gathered = b"" if isinstance(message, Cleared) else self._gathered
            outgoing += self._written(last=True) if self._has_place else []
            self._settle(asked)
        if isinstance(message, (Cleared, Done)):
            message = replace(message, input=self.input_position, output=self.output_position)
        return outgoing + _answer(asked.reply, encode_answer(message, self.output_position))

    def _output_at(self, position: int) -> int:
        """Where the output of an utterance starts whose input starts at `position`."""
        return -(-position // self.input.hop) * self.output.hop

    def _settle(self, asked: _Asked) -> None:
        """Removes a request that ended an utterance, and earlier ones that a clear has overtaken."""
        while True:
            first = self._asked.popleft()
            self._starts.popleft()
            if first is asked:
                return


def _answer(reply: Reply, payload: bytes) -> list[OutputFrame | Answer]:
    return [Answer(reply, payload)] if reply.topic is not None else []
