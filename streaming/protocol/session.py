"""One conversation of `neucodec.v1` on the server's side, without I/O; client_session.py is the client's side.

Both sides use the same table of states. A session counts positions (units accepted, units sent), orders outgoing
messages, and knows the pending marks and flushes. The length of an utterance's output is known in advance (one frame
for every whole frame of input), so a mark's place in the output is known when the mark arrives.

    transport -> receive() -> engine;  the engine's results -> output_ready(), flush_finished()
              -> next_message() -> transport

A transport carries payload (bytes) and the dataclasses of messages.py, in any encoding. A session survives the loss of
its connection: the server keeps sent output up to a limit and the client its unanswered input, so that both continue
where they were (docs/protocol.md).
"""

from collections import deque
from dataclasses import dataclass, replace
from typing import NamedTuple

from neucodec_streaming.errors import ProtocolError, StreamingError
from neucodec_streaming.protocol.messages import (
    AnswerMessage,
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
    Prime,
    Primed,
    Ready,
    ServerMessage,
    Stats,
)
from neucodec_streaming.protocol.states import (
    OVER,
    UNGREETED,
    ConnectionLost,
    InputPayload,
    OutputPayload,
    State,
    next_state,
)

MAX_WAITING = 4096
"""Limit of a client's pending marks and flushes; one more is an error."""
_ANSWER_BYTES = 64
"""Bytes that a kept answer counts for."""


@dataclass(frozen=True)
class _Waiting:
    """A mark or flush that waits for the output up to `due` units."""

    due: int
    request: Mark | Flush | End


class _Sent(NamedTuple):
    """A message that was handed out, after output up to `position` and after `answers` answers.

    It takes `size` bytes of `max_replay_bytes`.
    """

    item: bytes | AnswerMessage
    size: int
    position: int
    answers: int


class ServerSession:
    """The server's side. `input_position` counts units accepted, `output_position` units handed out for sending.

    `close_code` is the WebSocket status to close with once the session `is_over`. `epoch` counts the clears: results of
    an older epoch are dropped. The owner bounds the queued payload (`queued_units`). `max_replay_bytes` of handed-out
    messages are kept for a client that did not receive them. `computed_from`: the output position that belongs to
    `ready.input_position`; output from there to `ready.output_position` is recomputed and not sent, since the client
    has it.
    """

    def __init__(self, ready: Ready, *, computed_from: int | None = None, max_replay_bytes: int = 0) -> None:
        self.state = State.OPENING
        self.input, self.output = ready.input, ready.output
        self.input_position = ready.input_position
        self.output_position = ready.output_position if computed_from is None else computed_from
        self.requests = 0
        self.queued_units = 0
        self.epoch = 0
        self.failure: Failure | None = None
        self.close_code = 1000
        self._known = ready.output_position  # the client has all output up to here
        self._utterance_input = 0
        self._utterance_start = self.output_position  # output position at which the utterance starts
        self._waiting: deque[_Waiting] = deque()
        self._outbox: deque[bytes | ServerMessage] = deque([ready])
        self._answers = 0
        self._sent: deque[_Sent] = deque()
        self._sent_bytes = 0
        self._max_replay_bytes = max_replay_bytes

    @property
    def is_over(self) -> bool:
        """Whether no message follows."""
        return self.state in OVER

    def receive(self, message: bytes | ClientMessage) -> None:
        """Accepts payload or a client's message, which the caller then passes to the engine (except a Mark).

        A named voice must have been replaced by its tokens. Raises ProtocolError, AudioError or TokenError; the session
        is then unchanged and should `fail`.
        """
        if isinstance(message, bytes):
            units = self.input.count(message)
            self.state = next_state(self.state, InputPayload)
            self.input_position += units
            self._utterance_input += units
            return
        if len(self._waiting) >= MAX_WAITING and not isinstance(message, Clear):
            raise ProtocolError(
                f"{MAX_WAITING} marks and flushes are unanswered: wait for answers before you send more"
            )
        if isinstance(message, Prime):
            message.check_for(self.output)
        self.state = next_state(self.state, type(message))
        self.requests += 1
        if isinstance(message, Clear):
            self._clear()
            return
        if isinstance(message, Prime):
            assert message.tokens is not None, "a name was not looked up"
            self._outbox.append(Primed(len(message.tokens)))
            return
        self._waiting.append(_Waiting(self._due, message))
        if isinstance(message, Mark):
            self._answer_marks()
        else:
            self._utterance_start = self._due
            self._utterance_input = 0

    def output_ready(self, payload: bytes, epoch: int) -> None:
        """Queues output of the engine; drops that of a cleared utterance, and output that the client has."""
        if epoch != self.epoch or self.failure is not None:
            return
        units = self.output.count(payload)
        known = min(units, max(0, self._known - self.output_position))
        self.output_position += known
        if known < units:
            self._outbox.append(payload[known * self.output.unit_bytes :] if known else payload)
            self.queued_units += units - known
        if self._waiting:
            self._answer_marks()

    def flush_finished(self, epoch: int) -> None:
        """The engine has delivered all output of the oldest flushed utterance."""
        if epoch != self.epoch or self.failure is not None:
            return
        while True:
            waiting = self._waiting.popleft()
            if isinstance(waiting.request, Mark):
                self._outbox.append(Marked(waiting.request.id))
                continue
            assert waiting.due == self.output_position + self.queued_units, "the engine owes or made up output"
            if isinstance(waiting.request, End):
                dropped = self.input_position - waiting.due // self.output.hop * self.input.hop
                self._outbox.append(Done(self.input_position, waiting.due, dropped))
            else:
                self._outbox.append(Flushed())
            self._answer_marks()
            return

    def report(self, stats: Stats) -> None:
        if self.state in (State.STREAMING, State.ENDING) and self.failure is None:
            self._outbox.append(stats)

    def fail(self, error: StreamingError) -> None:
        """Drops unsent messages and queues `error` as the last one; a second failure changes nothing."""
        if self.failure is None and not self.is_over:
            self.failure = Failure(error.code, str(error))  # the error itself would keep its whole traceback alive
            self.close_code = error.close_code
            self._outbox.clear()
            self.queued_units = 0
            self._outbox.append(self.failure)

    def lose(self) -> None:
        """The connection is lost; output is still queued, for `resume`."""
        self.state = next_state(self.state, ConnectionLost)

    def can_resume(self, received: int, answers: int | None = None) -> bool:
        """Whether the server still has everything after `received` output units and `answers` answers."""
        least, most = max(self._first_kept[0], self._known), max(self.output_position, self._known)
        if self.failure is not None or not least <= received <= most:
            return False
        return answers is None or self._first_kept[1] <= answers <= self._answers

    def resume(self, ready: Ready, received: int, answers: int | None = None) -> None:
        """A new connection: queues `ready`, then what a client that `can_resume` lacks, then the rest.

        `answers` None: repeats all answers after the output that the client has.
        """
        lacking: deque[bytes | ServerMessage] = deque(
            [replace(ready, input_position=self.input_position, output_position=received, requests=self.requests)]
        )
        had = self._answers
        for sent in self._sent:
            if isinstance(sent.item, bytes):
                rest = sent.item[max(0, received - sent.position) * self.output.unit_bytes :]
                if rest:
                    lacking.append(rest)
                    self.queued_units += self.output.count(rest)
            elif sent.answers >= answers if answers is not None else sent.position >= received:
                lacking.append(sent.item)
                had = min(had, sent.answers)
        lacking.extend(item for item in self._outbox if not isinstance(item, (Ready, Stats)))
        self._outbox = lacking
        self._answers = had
        self._sent.clear()
        self._sent_bytes = 0
        self.output_position = min(self.output_position, received)
        self.lose()

    def next_message(self) -> bytes | ServerMessage | None:
        """The next message to send, or None; payload counts as sent from here on."""
        if not self._outbox:
            return None
        item = self._outbox.popleft()
        if isinstance(item, bytes):
            self.state = next_state(self.state, OutputPayload)
            self._keep(item, len(item))
            units = self.output.count(item)
            self.queued_units -= units
            self.output_position += units
            return item
        self.state = next_state(self.state, type(item))
        if isinstance(item, AnswerMessage):
            self._keep(item, _ANSWER_BYTES)
            self._answers += 1
        return item

    @property
    def is_greeted(self) -> bool:
        """Whether `ready` was handed out on this connection."""
        return self.state not in UNGREETED

    @property
    def is_fresh(self) -> bool:
        """Whether the stream has had no input since it began and owes nothing."""
        return not self._utterance_input and not any(not isinstance(each.request, Mark) for each in self._waiting)

    @property
    def owed_frames(self) -> int:
        """Accepted frames whose output was neither sent nor dropped."""
        return (self._due - self.output_position) // self.output.hop

    @property
    def queued_messages(self) -> int:
        return len(self._outbox)

    @property
    def _due(self) -> int:
        """The output position after all whole frames of this utterance."""
        return self._utterance_start + self._utterance_input // self.input.hop * self.output.hop

    @property
    def _first_kept(self) -> tuple[int, int]:
        """Output position and number of answers from which on all handed-out messages are kept."""
        if self._sent:
            return self._sent[0].position, self._sent[0].answers
        return max(self.output_position, self._known), self._answers

    def _keep(self, item: bytes | AnswerMessage, size: int) -> None:
        self._sent.append(_Sent(item, size, self.output_position, self._answers))
        self._sent_bytes += size
        while self._sent_bytes > self._max_replay_bytes:
            self._sent_bytes -= self._sent.popleft().size

    def _answer_marks(self) -> None:
        reached = self.output_position + self.queued_units
        while self._waiting and self._waiting[0].due <= reached:
            request = self._waiting[0].request
            if not isinstance(request, Mark):
                return
            self._waiting.popleft()
            self._outbox.append(Marked(request.id))

    def _clear(self) -> None:
        """Drops unsent output and returns its marks as cleared; `cleared` also answers a pending flush."""
        self.output_position = position = max(self.output_position, self._known)
        kept: deque[bytes | ServerMessage] = deque()
        lost = False
        for item in self._outbox:
            if isinstance(item, bytes):
                lost = True
            elif lost and isinstance(item, Marked):
                kept.append(Marked(item.id, cleared=True))
            elif isinstance(item, Cleared):
                kept.append(replace(item, output=position))  # its units are dropped too
            elif not (lost and isinstance(item, Flushed)):
                kept.append(item)
        kept.extend(Marked(waiting.request.id, True) for waiting in self._waiting if isinstance(waiting.request, Mark))
        kept.append(Cleared(self.input_position, position))
        self._outbox = kept
        self._waiting.clear()
        self.queued_units = 0
        self.epoch += 1
        self._utterance_input = 0
        self._utterance_start = position
