"""The client and server halves of a conversation, alone and wired together through a one-line engine."""

import random
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neucodec_streaming.errors import (
    AudioError,
    DeviceError,
    LocalProtocolError,
    ProtocolError,
    StreamingError,
    TokenError,
)
from neucodec_streaming.protocol.client_session import ClientSession
from neucodec_streaming.protocol.messages import (
    INPUT_AUDIO,
    OUTPUT_AUDIO,
    TOKENS,
    Clear,
    Cleared,
    Done,
    End,
    Failure,
    Flush,
    Flushed,
    Mark,
    Marked,
    Message,
    Ready,
    Stats,
    parse_client_message,
)
from neucodec_streaming.protocol.session import ServerSession
from neucodec_streaming.protocol.states import (
    EVENT_NAMES,
    TRANSITIONS,
    ConnectionLost,
    InputPayload,
    OutputPayload,
    State,
    next_state,
)

SAYINGS = [Flush(), Clear(), Mark("m"), Mark(3), End()]
FRAME = bytes(640)  # 320 samples of s16le
READY = Ready("s1", "mini", "default", 5, 5, 215.0, INPUT_AUDIO, TOKENS)


def opened() -> ServerSession:
    session = ServerSession(READY)
    assert session.next_message() == READY
    return session


def sent(session: ServerSession) -> list:
    messages = []
    while (message := session.next_message()) is not None:
        messages.append(message)
    return messages


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("move", list(EVENT_NAMES))
def test_every_transition_follows_the_state_table_or_raises(state, move):
    if move in TRANSITIONS[state]:
        assert next_state(state, move) is TRANSITIONS[state][move]
    else:
        with pytest.raises(ProtocolError, match=state.name.lower()):
            next_state(state, move)


def test_every_message_has_a_transition_and_every_state_an_exit():
    assert set(EVENT_NAMES) == {*get_args(Message), InputPayload, OutputPayload, ConnectionLost}
    left = {State.STREAMING: State.LOST, State.LOST: State.LOST}
    left |= dict.fromkeys((State.ENDING, State.LOST_ENDING, State.DONE), State.LOST_ENDING)
    assert all(TRANSITIONS[state][ConnectionLost] is left.get(state, State.CLOSED) for state in State)


def test_ready_is_the_first_message():
    session = ServerSession(READY)
    assert session.state is State.OPENING
    assert sent(session) == [READY]
    assert session.state is State.STREAMING


def test_output_is_counted_when_it_is_handed_out():
    session = opened()
    session.receive(FRAME * 2)
    session.output_ready(bytes(4), 0)
    assert (session.output_position, session.queued_units) == (0, 2)
    assert sent(session) == [bytes(4)]
    assert (session.output_position, session.queued_units) == (2, 0)


def test_flushed_follows_the_tail():
    session = opened()
    session.receive(FRAME + b"ab")
    session.receive(Flush())
    session.output_ready(bytes(2), 0)
    session.flush_finished(0)
    assert sent(session) == [bytes(2), Flushed()]


def test_done_has_totals_over_all_utterances():
    session = opened()
    session.receive(FRAME + b"ab")
    session.receive(Flush())
    session.receive(FRAME + b"abcd")
    session.receive(End())
    for _ in range(2):
        session.output_ready(bytes(2), 0)
        session.flush_finished(0)
    assert sent(session) == [bytes(2), Flushed(), bytes(2), Done(643, 2, 3)]
    assert session.state is State.DONE and session.close_code == 1000


def test_a_mark_is_answered_after_the_output_of_the_last_whole_frame_before_it():
    session = opened()
    session.receive(FRAME + FRAME[:600])
    session.receive(Mark("a"))
    session.receive(FRAME)
    session.receive(Mark("b"))
    assert sent(session) == []
    session.output_ready(bytes(2), 0)
    assert sent(session) == [bytes(2), Marked("a")]
    session.output_ready(bytes(2), 0)
    assert sent(session) == [bytes(2), Marked("b")]


def test_a_mark_before_any_whole_frame_is_answered_at_once():
    session = opened()
    session.receive(FRAME[:100])
    session.receive(Mark(1))
    assert sent(session) == [Marked(1)]


def test_a_mark_of_the_next_utterance_waits_for_the_flush_before_it():
    session = opened()
    session.receive(FRAME)
    session.receive(Flush())
    session.receive(Mark("next"))
    session.output_ready(bytes(2), 0)
    assert sent(session) == [bytes(2)]
    session.flush_finished(0)
    assert sent(session) == [Flushed(), Marked("next")]


def test_clear_drops_unsent_output_and_returns_marks_first():
    session = opened()
    session.receive(FRAME * 3)
    session.receive(Mark("a"))
    session.output_ready(bytes(2), 0)
    assert sent(session) == [bytes(2)]
    session.output_ready(bytes(4), 0)  # queued, followed by the answer to "a"
    session.receive(FRAME)
    session.receive(Mark("b"))
    session.receive(Clear())
    assert sent(session) == [Marked("a", True), Marked("b", True), Cleared(1280, 1)]


def test_no_output_of_the_old_utterance_follows_cleared():
    session = opened()
    session.receive(FRAME * 2)
    session.receive(Flush())
    session.receive(Clear())
    session.output_ready(bytes(4), 0)  # late results
    session.flush_finished(0)
    assert sent(session) == [Cleared(640, 0)]
    session.receive(FRAME)
    session.receive(End())
    session.output_ready(bytes(2), 1)
    session.flush_finished(1)
    assert sent(session) == [bytes(2), Done(960, 1, 640)]


def test_a_mark_whose_output_was_sent_is_not_reported_as_cleared():
    session = opened()
    session.receive(FRAME)
    session.receive(Mark("a"))
    session.output_ready(bytes(2), 0)
    assert isinstance(session.next_message(), bytes)
    session.receive(Clear())
    assert sent(session) == [Marked("a"), Cleared(320, 1)]


def test_half_a_sample_is_refused_and_changes_nothing():
    session = opened()
    with pytest.raises(AudioError):
        session.receive(b"abc")
    assert session.input_position == 0 and session.state is State.STREAMING
    session = ServerSession(replace(READY, input=TOKENS, output=OUTPUT_AUDIO))
    session.next_message()
    with pytest.raises(TokenError):
        session.receive(b"abc")


@pytest.mark.parametrize("late", [FRAME, Flush(), Mark(1), End()])
def test_nothing_may_follow_end(late):
    session = opened()
    session.receive(End())
    with pytest.raises(ProtocolError, match="ending"):
        session.receive(late)


def test_an_error_is_the_last_message_and_sets_the_close_code():
    session = opened()
    session.receive(FRAME)
    session.output_ready(bytes(2), 0)
    session.fail(DeviceError("the device failed"))
    session.fail(ProtocolError("too late to matter"))
    session.output_ready(bytes(2), 0)
    session.report(Stats(0, 0))
    assert sent(session) == [Failure("device", "the device failed")]
    assert session.state is State.CLOSED and session.close_code == 1011


def test_a_session_whose_connection_is_lost_takes_output_and_no_input():
    session = opened()
    session.receive(FRAME)
    session.lose()
    session.output_ready(bytes(2), 0)
    assert session.state is State.LOST and session.queued_units == 1


@given(st.lists(st.one_of(st.binary(max_size=2000), st.text(max_size=30), st.sampled_from(SAYINGS)), max_size=30))
def test_any_client_messages_are_accepted_or_refused_with_consistent_counts(messages):
    session = opened()
    accepted = 0
    for message in messages:
        try:
            session.receive(message if not isinstance(message, str) else parse_client_message(message))
        except StreamingError as error:
            session.fail(error)
            break
        accepted += len(message) // 2 if isinstance(message, bytes) else 0
    assert session.input_position == accepted
    assert 0 <= session.owed_frames * 320 <= accepted
    sent(session)
    assert (session.state is State.CLOSED) == (session.failure is not None)


# Client side


def greeted() -> ClientSession:
    client = ClientSession(INPUT_AUDIO, TOKENS)
    assert client.receive(READY) == READY
    return client


def test_a_client_may_not_send_before_ready():
    client = ClientSession(INPUT_AUDIO, TOKENS)
    with pytest.raises(LocalProtocolError, match="opening"):
        client.send_payload(FRAME)


def test_a_client_refuses_formats_that_it_did_not_request():
    client = ClientSession(INPUT_AUDIO, OUTPUT_AUDIO)
    with pytest.raises(ProtocolError, match="output"):
        client.receive(READY)


def test_a_client_drops_what_arrives_between_clear_and_cleared():
    client = greeted()
    client.send_payload(FRAME * 2)
    client.send(Flush())
    client.send(Clear())
    assert client.clearing and client.receive(bytes(2)) is None
    assert client.receive(Cleared(640, 1)) == Cleared(640, 1)
    assert not client.clearing and client.receive(bytes(2)) == bytes(2)


@pytest.mark.parametrize("answer", [Flushed(), Cleared(0, 0), Marked("a"), Done(0, 0, 0)])
def test_unrequested_answers_are_refused(answer):
    with pytest.raises(ProtocolError):
        greeted().receive(answer)


def test_lost_output_is_detected():
    client = greeted()
    client.send_payload(FRAME * 2)
    client.send(End())
    client.receive(bytes(2))
    with pytest.raises(ProtocolError, match="2 tokens"):
        client.receive(Done(640, 2, 0))


def test_payload_after_done_is_refused():
    client = greeted()
    client.send(End())
    client.receive(Done(0, 0, 0))
    with pytest.raises(ProtocolError, match="done"):
        client.receive(bytes(2))


# Both sides, wired together


class Wire:
    """The engine turns every frame into one token, with random delays."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.server, self.client = ServerSession(READY), ClientSession(INPUT_AUDIO, TOKENS)
        self.upwards, self.downwards, self.engine, self.seen = [], [], [], []

    def act(self, allowed: list[str]) -> None:
        getattr(self, self.rng.choice(allowed))()

    def say(self) -> None:
        if self.client.state is not State.STREAMING:
            return
        kind = self.rng.choice(["payload"] * 6 + ["mark", "flush", "clear"])
        if kind == "payload":
            self.upwards.append(self.client.send_payload(bytes(2 * self.rng.randrange(900))))
        else:
            message = {"mark": Mark(self.rng.randrange(9)), "flush": Flush(), "clear": Clear()}[kind]
            self.upwards.append(self.client.send(message))

    def hear(self) -> None:
        if self.upwards:
            command = self.upwards.pop(0)
            self.server.receive(command)
            if not isinstance(command, Mark):
                self.engine.append((command, self.server.epoch))

    def compute(self) -> None:
        """Frames come once they are whole, or at the flush."""
        if not self.engine:
            return
        command, epoch = self.engine.pop(0)
        if isinstance(command, bytes):
            before = getattr(self, "samples", 0)
            self.samples = before + len(command) // 2
            frames = self.samples // 320 - before // 320
            if frames:
                self.server.output_ready(bytes(2 * frames), epoch)
        else:
            self.samples = 0
            if not isinstance(command, Clear):
                self.server.flush_finished(epoch)

    def send(self) -> None:
        message = self.server.next_message()
        if message is not None:
            self.downwards.append(message)

    def listen(self) -> None:
        if self.downwards:
            event = self.client.receive(self.downwards.pop(0))
            if event is not None:
                self.seen.append(event)


@pytest.mark.parametrize("seed", range(60))
def test_two_sessions_wired_together_always_agree(seed):
    wire = Wire(random.Random(seed))
    steps = ["say", "hear", "compute", "send", "listen"]
    wire.send()
    wire.listen()
    for _ in range(300):
        wire.act(steps)
    wire.upwards.append(wire.client.send(End()))
    while not wire.client.is_over:
        wire.act(steps[1:])
    done = wire.seen[-1]
    assert done == Done(wire.client.input_position, wire.client.output_position, done.dropped)
    assert done.input == done.output * 320 + done.dropped
    assert wire.server.state is State.DONE and not wire.client._log.asked
