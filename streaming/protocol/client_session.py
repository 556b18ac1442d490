"""One conversation of `neucodec.v1` on the client's side, without I/O; session.py is the server's side.

    send_payload(), send() -> transport;  transport -> receive() -> payload or message for the user

Unanswered payload and requests are kept, so that a session continues after its connection is lost (docs/protocol.md).
Its JavaScript twin is server/web/protocol.js.
"""

from dataclasses import replace

from neucodec_streaming.errors import LocalProtocolError, ProtocolError
from neucodec_streaming.protocol.messages import (
    REQUEST_OF,
    AnswerMessage,
    Clear,
    Cleared,
    ClientMessage,
    Done,
    Marked,
    Prime,
    Ready,
    ServerMessage,
    StreamFormat,
)
from neucodec_streaming.protocol.query import SessionRequest
from neucodec_streaming.protocol.replay import ReplayLog
from neucodec_streaming.protocol.states import OVER, ConnectionLost, InputPayload, OutputPayload, State, next_state

REPLAY_SECONDS = 60.0
"""Input kept for a server that has lost the session."""


class ClientSession:
    """The client's side. `input_position` counts units sent, `output_position` units received (also dropped ones).

    After `lose` it still accepts payload and requests: `resuming` is the request to resume the session, and after the
    new `ready` the caller sends `unsent`. `replay_seconds` of input are kept for a server that has lost the session.
    """

    def __init__(
        self,
        input: StreamFormat,
        output: StreamFormat,
        replay_seconds: float = REPLAY_SECONDS,
        *,
        has_model_rate: bool = False,
    ) -> None:
        self.state = State.OPENING
        self.input, self.output = input, output
        self._has_model_rate = has_model_rate
        self.ready: Ready | None = None
        self.input_position = 0
        self.output_position = 0
        self.stale_until = 0  # output before this position is dropped
        self.heard_input = 0  # input whose output had arrived when the server lost the session
        self._log = ReplayLog(input, output, int(replay_seconds * input.rate))
        self._answers = 0

    @property
    def is_lost(self) -> bool:
        """Whether the connection is lost and may be replaced."""
        return self.state in (State.LOST, State.LOST_ENDING)

    @property
    def is_over(self) -> bool:
        return self.state in OVER

    @property
    def is_owed(self) -> bool:
        """Whether the server owes an answer."""
        return bool(self._log.asked)

    @property
    def clearing(self) -> bool:
        """Whether a `clear` is unanswered: payload that arrives now belongs to the old utterance."""
        return self._log.find(Clear) is not None

    def send_payload(self, payload: bytes) -> bytes:
        """Counts and returns `payload`. Raises AudioError, TokenError, or LocalProtocolError if it may not be sent."""
        units = self.input.count(payload)
        self._check_open()
        self.state = next_state(self.state, InputPayload, LocalProtocolError)
        self.input_position += units
        self._log.add_payload(payload)
        return payload

    def withdraw(self, units: int) -> None:
        """Uncounts the latest `units` of input, which a `clear` made worthless before they were sent: the next unit
        takes the position of the first of them.
        """
        self.input_position -= units
        self._log.drop(self.input_position, units)

    def send(self, message: ClientMessage) -> ClientMessage:
        """Records `message` and returns it. Raises LocalProtocolError if it may not be sent now."""
        self._check_open()
        if isinstance(message, Prime):
            message.check_for(self.output)
        self.state = next_state(self.state, type(message), LocalProtocolError)
        self._log.add_request(message)
        return message

    def receive(self, message: bytes | ServerMessage | None) -> bytes | ServerMessage | None:
        """Accepts a server's message and returns what concerns the user: payload, a message, or None.

        Returns None for None (an unknown message) and for payload that a pending `clear` has made worthless. Raises
        ProtocolError if the server violates the protocol.
        """
        if message is None:
            return None
        if isinstance(message, bytes):
            units = self.output.count(message)
            self.state = next_state(self.state, OutputPayload)
            self.output_position += units
            fresh = min(units, self.output_position - self.stale_until)
            return None if self.clearing or fresh <= 0 else message[(units - fresh) * self.output.unit_bytes :]
        self.state = next_state(self.state, type(message))
        if isinstance(message, Ready):
            self._open(message)
        elif isinstance(message, AnswerMessage):
            return self._settle(message)
        return message

    def lose(self) -> None:
        """The connection is lost."""
        self.state = next_state(self.state, ConnectionLost)

    def resuming(self, request: SessionRequest, replay: bool = True) -> SessionRequest:
        """The request to resume this session, from `request`; without `replay` a server that has lost it starts a new
        one.
        """
        assert self.ready is not None, "the session was never open"
        start, whole = self._log.start, self._log.whole
        return replace(
            request,
            resume=self.ready.resume.token,
            received=self.output_position,
            answers=self._answers,
            utterance=start if replay and whole else None,
            tail=start if replay and not whole else None,
        )

    def drop_stale(self, max_age_units: int | None = None) -> int:
        """After a new `ready`: drops input before a `clear` that the server has not received, and of a live stream all
        but the latest `max_age_units`, with the output of older input. Returns the number of dropped input units.
        """
        assert self.ready is not None, "the session was never open"
        begin, end = self.ready.input_position, self.ready.input_position
        for asked in self._log.asked:
            if isinstance(asked.message, Clear) and asked.number >= self.ready.requests:
                end = max(end, asked.at)
        if max_age_units is not None and self.input_position - begin > max_age_units:
            end = max(end, self.input_position - max_age_units)
            frames = (begin - self._log.start.input) // self.input.hop
            self.stale_until = max(0, self._log.start.output + frames * self.output.hop)
        self._log.drop(begin, end - begin)
        self.input_position -= end - begin
        return end - begin

    @property
    def unsent(self) -> list[bytes | ClientMessage]:
        """Payload and requests that the server of the latest `ready` lacks, in order."""
        assert self.ready is not None, "the session was never open"
        return list(self._log.after(self.ready.input_position, self.ready.requests))

    def _check_open(self) -> None:
        if self.state in (State.ENDING, State.LOST_ENDING, State.DONE, State.CLOSED):
            raise LocalProtocolError("the session has ended: after end() nothing can be sent; open another session")

    def _open(self, ready: Ready) -> None:
        if self._has_model_rate and self.ready is None:
            self.output = replace(self.output, rate=ready.output.rate)
            self._log.output = self.output
        for name, asked, given in (("input", self.input, ready.input), ("output", self.output, ready.output)):
            if asked != given:
                raise ProtocolError(
                    f"requested {name} {asked}, but the server confirmed {given}: is this a neucodec.v1 server?"
                )
        if self.ready is not None:
            if ready.session != self.ready.session:
                self._answers = 0
                self._log.renumber()
            self.heard_input = 0
            if ready.resumed == "new":
                frames = (self.output_position - self._log.start.output) // self.output.hop
                self.heard_input = frames * self.input.hop
                self.input_position -= self._log.start.input
                self._log.restart()
            self.output_position = ready.output_position
        self.ready = ready

    def _settle(self, answer: AnswerMessage) -> AnswerMessage | None:
        wanted = REQUEST_OF[type(answer)]
        asked = self._log.find(wanted, answer.id if isinstance(answer, Marked) else None)
        if asked is None:
            raise ProtocolError(
                f"the server sent {answer.type} without a matching request: is this a neucodec.v1 server?"
            )
        if isinstance(answer, (Cleared, Done)) and answer.output != self.output_position:
            raise ProtocolError(
                f"the server sent {answer.output} {self.output.unit}s of output, but {self.output_position} arrived"
            )
        self._answers += 1
        self._log.settle(asked, self.output_position)
        if isinstance(answer, Cleared):
            self.stale_until = 0
            self.input_position += answer.input - asked.at  # the server received less than was sent
            self._log.move(answer.input - asked.at)
        if asked.is_again:
            return None
        return replace(answer, cleared=True) if isinstance(answer, Marked) and asked.is_cut else answer
