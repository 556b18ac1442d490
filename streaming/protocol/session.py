"""One conversation of `neucodec.v1`, seen from the server and from the client, without I/O.

Both sides walk the same literal table of states. A session counts positions (units accepted, units sent), holds what
goes out next in order, and knows which marks and flushes still wait: the output of an utterance is known beforehand
(one frame out for every whole frame in), so a mark's place in the output is known when the mark arrives.

    server: bytes from the socket -> receive() -> a command for the engine; the engine's results -> output_ready(),
            flush_finished() -> next_message() -> socket
    client: send_payload(), send() -> socket;  bytes from the socket -> receive() -> payload or message for the user
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto

from streaming.errors import LocalProtocolError, ProtocolError, StreamingError
from streaming.protocol.messages import (
    Clear,
    Cleared,
    ClientMessage,
    Done,
    End,
    Failure,
    Flush,
    Flushed,
    Mark,
    Marked,
    Ready,
    ServerMessage,
    Stats,
    StreamFormat,
    encode_message,
    parse_client_message,
    parse_server_message,
)


class State(Enum):
    """Where a conversation is."""

    __hash__ = object.__hash__  # that of Enum is written in Python, and every packet looks up two
    OPENING = auto()
    STREAMING = auto()
    ENDING = auto()
    CLOSED = auto()


class Move(Enum):
    """What takes a conversation from state to state: a message in either direction, or the loss of the connection."""

    __hash__ = object.__hash__
    READY = "ready"
    INPUT = "input payload"
    OUTPUT = "output payload"
    FLUSH = "flush"
    FLUSHED = "flushed"
    CLEAR = "clear"
    CLEARED = "cleared"
    MARK = "mark"
    MARKED = "mark answered"
    END = "end"
    DONE = "done"
    STATS = "stats"
    ERROR = "error"
    LOSS = "connection lost"


TRANSITIONS: dict[State, dict[Move, State]] = {
    State.OPENING: {
        Move.READY: State.STREAMING,
        Move.ERROR: State.CLOSED,
        Move.LOSS: State.CLOSED,
    },
    State.STREAMING: {
        Move.INPUT: State.STREAMING,
        Move.OUTPUT: State.STREAMING,
        Move.FLUSH: State.STREAMING,
        Move.FLUSHED: State.STREAMING,
        Move.CLEAR: State.STREAMING,
        Move.CLEARED: State.STREAMING,
        Move.MARK: State.STREAMING,
        Move.MARKED: State.STREAMING,
        Move.STATS: State.STREAMING,
        Move.END: State.ENDING,
        Move.ERROR: State.CLOSED,
        Move.LOSS: State.CLOSED,
    },
    State.ENDING: {
        Move.OUTPUT: State.ENDING,
        Move.FLUSHED: State.ENDING,
        Move.CLEARED: State.ENDING,
        Move.MARKED: State.ENDING,
        Move.STATS: State.ENDING,
        Move.DONE: State.CLOSED,
        Move.ERROR: State.CLOSED,
        Move.LOSS: State.CLOSED,
    },
    State.CLOSED: {
        Move.LOSS: State.CLOSED,
    },
}

MOVES: dict[type, Move] = {
    Ready: Move.READY,
    Flush: Move.FLUSH,
    Flushed: Move.FLUSHED,
    Clear: Move.CLEAR,
    Cleared: Move.CLEARED,
    Mark: Move.MARK,
    Marked: Move.MARKED,
    End: Move.END,
    Done: Move.DONE,
    Stats: Move.STATS,
    Failure: Move.ERROR,
}


def next_state(state: State, move: Move, error: type[ProtocolError] = ProtocolError) -> State:
    """The state after `move`; raises `error` when the table has no such move."""
    after = TRANSITIONS[state].get(move)
    if after is None:
        allowed = ", ".join(known.value for known in TRANSITIONS[state])
        raise error(f"{move.value} is not allowed while the session is {state.name.lower()}: only {allowed}")
    return after


MAX_WAITING = 4096
"""Marks and flushes of a client that may wait for their answer; one more is an error."""


@dataclass(frozen=True)
class _Waiting:
    """A mark or a flush that waits for the output up to `due` units."""

    due: int
    request: Mark | Flush | End


class ServerSession:
    """The server's side. `input_position` counts units accepted, `output_position` units handed out to be sent.

    `epoch` counts the clears: results of an older epoch are dropped. Payload that waits is bounded by whoever feeds
    this session (`queued_units`).
    """

    def __init__(self, ready: Ready) -> None:
        self.state = State.OPENING
        self.input, self.output = ready.input, ready.output
        self.input_position = 0
        self.output_position = 0
        self.queued_units = 0
        self.epoch = 0
        self.failure: StreamingError | None = None
        self._utterance_input = 0
        self._utterance_start = 0  # output position at which the utterance begins
        self._waiting: deque[_Waiting] = deque()
        self._outbox: deque[bytes | ServerMessage] = deque([ready])

    def receive(self, data: bytes | str) -> bytes | ClientMessage:
        """Accepts one message of the client and returns what the engine must do: payload, Flush, Clear, Mark or End.

        Raises ProtocolError, AudioError or TokenError; the session is then as before and should `fail`.
        """
        if isinstance(data, bytes):
            units = self.input.count(data)
            self.state = next_state(self.state, Move.INPUT)
            self.input_position += units
            self._utterance_input += units
            return data
        message = parse_client_message(data)
        if len(self._waiting) >= MAX_WAITING and not isinstance(message, Clear):
            raise ProtocolError(f"{MAX_WAITING} marks and flushes wait for their answer: send fewer, or wait for some")
        self.state = next_state(self.state, MOVES[type(message)])
        if isinstance(message, Clear):
            self._clear()
        else:
            self._waiting.append(_Waiting(self._due, message))
            if isinstance(message, Mark):
                self._answer_marks()
            else:
                self._utterance_start = self._due
                self._utterance_input = 0
        return message

    def output_ready(self, payload: bytes, epoch: int) -> None:
        """Queues output of the engine; what belongs to a cleared utterance is dropped."""
        if epoch != self.epoch or self.failure is not None:
            return
        self._outbox.append(payload)
        self.queued_units += self.output.count(payload)
        self._answer_marks()

    def flush_finished(self, epoch: int) -> None:
        """The engine has delivered everything of the oldest utterance that was flushed."""
        if epoch != self.epoch or self.failure is not None:
            return
        while True:
            waiting = self._waiting.popleft()
            if isinstance(waiting.request, Mark):
                self._outbox.append(Marked(waiting.request.id))
                continue
            assert waiting.due == self.output_position + self.queued_units, "the engine owes or made up output"
            if isinstance(waiting.request, End):
                self._outbox.append(Done(self.input_position, waiting.due, self._dropped(waiting.due)))
            else:
                self._outbox.append(Flushed())
            self._answer_marks()
            return

    def report(self, stats: Stats) -> None:
        """Queues `stats`."""
        if self.state in (State.STREAMING, State.ENDING) and self.failure is None:
            self._outbox.append(stats)

    def fail(self, error: StreamingError) -> None:
        """Drops what is unsent and queues `error` as the last message; a second failure changes nothing."""
        if self.failure is None and self.state is not State.CLOSED:
            self.failure = error
            self._outbox.clear()
            self.queued_units = 0
            self._outbox.append(Failure(error.code, str(error)))

    def lose(self) -> None:
        """The connection is gone."""
        self.state = next_state(self.state, Move.LOSS)
        self._outbox.clear()
        self.queued_units = 0

    def next_message(self) -> bytes | str | None:
        """The next message to send, None when there is none now; payload counts as sent from here on."""
        if not self._outbox:
            return None
        item = self._outbox.popleft()
        if isinstance(item, bytes):
            self.state = next_state(self.state, Move.OUTPUT)
            units = self.output.count(item)
            self.queued_units -= units
            self.output_position += units
            return item
        self.state = next_state(self.state, MOVES[type(item)])
        return encode_message(item)

    @property
    def owed_frames(self) -> int:
        """Frames accepted whose output has neither been sent nor dropped."""
        return (self._due - self.output_position) // self.output.hop

    @property
    def queued_messages(self) -> int:
        """Messages that wait to be sent."""
        return len(self._outbox)

    @property
    def close_code(self) -> int:
        """The WebSocket status to close with once `state` is CLOSED."""
        return self.failure.close_code if self.failure is not None else 1000

    @property
    def _due(self) -> int:
        """The output position that all whole frames of this utterance lead to."""
        return self._utterance_start + self._utterance_input // self.input.hop * self.output.hop

    def _dropped(self, output: int) -> int:
        return self.input_position - output // self.output.hop * self.input.hop

    def _answer_marks(self) -> None:
        reached = self.output_position + self.queued_units
        while self._waiting and self._waiting[0].due <= reached:
            request = self._waiting[0].request
            if not isinstance(request, Mark):
                return
            self._waiting.popleft()
            self._outbox.append(Marked(request.id))

    def _clear(self) -> None:
        """Drops unsent output and returns the marks behind it as cleared; a flush that waits is answered by cleared."""
        kept: deque[bytes | ServerMessage] = deque()
        lost = False
        for item in self._outbox:
            if isinstance(item, bytes):
                lost = True
            elif lost and isinstance(item, Marked):
                kept.append(Marked(item.id, cleared=True))
            elif not (lost and isinstance(item, Flushed)):
                kept.append(item)
        kept.extend(Marked(waiting.request.id, True) for waiting in self._waiting if isinstance(waiting.request, Mark))
        kept.append(Cleared(self.input_position, self.output_position))
        self._outbox = kept
        self._waiting.clear()
        self.queued_units = 0
        self.epoch += 1
        self._utterance_input = 0
        self._utterance_start = self.output_position


class ClientSession:
    """The client's side. `input_position` counts units sent, `output_position` units received (dropped ones too)."""

    def __init__(self, input: StreamFormat, output: StreamFormat) -> None:
        self.state = State.OPENING
        self.input, self.output = input, output
        self.ready: Ready | None = None
        self.input_position = 0
        self.output_position = 0
        self._asked: deque[ClientMessage] = deque()

    @property
    def clearing(self) -> bool:
        """Whether a `clear` waits for its `cleared`: payload that arrives now is of the old utterance."""
        return any(isinstance(message, Clear) for message in self._asked)

    def send_payload(self, payload: bytes) -> bytes:
        """Counts `payload` and returns it; AudioError, TokenError or LocalProtocolError when it may not be sent."""
        units = self.input.count(payload)
        self.state = next_state(self.state, Move.INPUT, LocalProtocolError)
        self.input_position += units
        return payload

    def send(self, message: ClientMessage) -> str:
        """The text to send for `message`; LocalProtocolError when it may not be sent now."""
        text = encode_message(message)
        parse_client_message(text)
        self.state = next_state(self.state, MOVES[type(message)], LocalProtocolError)
        self._asked.append(message)
        return text

    def receive(self, data: bytes | str) -> bytes | ServerMessage | None:
        """What the server's message means: payload, a message, or None for what a client need not care about
        (an unknown type, or payload that a `clear` under way has made worthless).

        Raises ProtocolError when the server does what the protocol does not allow.
        """
        if isinstance(data, bytes):
            units = self.output.count(data)
            self.state = next_state(self.state, Move.OUTPUT)
            self.output_position += units
            return None if self.clearing else data
        message = parse_server_message(data)
        if message is None:
            return None
        self.state = next_state(self.state, MOVES[type(message)])
        if isinstance(message, Ready):
            self._check_formats(message)
            self.ready = message
        elif isinstance(message, (Flushed, Cleared, Marked, Done)):
            self._settle(message)
        return message

    def lose(self) -> None:
        """The connection is gone."""
        self.state = next_state(self.state, Move.LOSS)

    def _check_formats(self, ready: Ready) -> None:
        for name, asked, given in (("input", self.input, ready.input), ("output", self.output, ready.output)):
            if asked != given:
                raise ProtocolError(
                    f"asked for {name} {asked}, the server gives {given}: is the URL that of the server?"
                )

    def _settle(self, message: Flushed | Cleared | Marked | Done) -> None:
        """Takes the request that `message` answers off the list, with those that a clear has overtaken."""
        wanted = {Flushed: Flush, Cleared: Clear, Marked: Mark, Done: End}[type(message)]
        for request in list(self._asked):
            if isinstance(request, wanted) and (not isinstance(message, Marked) or request == Mark(message.id)):
                break
        else:
            raise ProtocolError(f"the server sent {message.type}, which nothing asked for: is it a neucodec.v1 server?")
        if isinstance(message, Cleared):
            while self._asked.popleft() is not request:
                pass
        else:
            self._asked.remove(request)
        if isinstance(message, (Cleared, Done)) and message.output != self.output_position:
            raise ProtocolError(
                f"the server says that it sent {message.output} {self.output.unit}s, but {self.output_position} arrived"
            )
