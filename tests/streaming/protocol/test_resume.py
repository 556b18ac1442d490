"""Connections that break at any moment: the output is the same as without a loss.

Server and client are wired together through an engine that answers each frame with a token computed from all samples of
the utterance so far, so that lost, duplicated or altered input shows.
"""

import random
from collections import deque
from dataclasses import replace

import numpy as np
import pytest

from neucodec_streaming.errors import ConfigError
from neucodec_streaming.protocol.client_session import ClientSession
from neucodec_streaming.protocol.messages import (
    INPUT_AUDIO,
    TOKENS,
    Clear,
    Cleared,
    ClientMessage,
    Done,
    End,
    Flush,
    Flushed,
    Mark,
    Ready,
    Resume,
    ServerMessage,
)
from neucodec_streaming.protocol.query import SessionRequest, parse_target
from neucodec_streaming.protocol.replay import Positions, ReplayLog
from neucodec_streaming.protocol.session import ServerSession
from neucodec_streaming.protocol.states import State

READY = Ready("s1", "mini", "default", 5, 5, 215.0, INPUT_AUDIO, TOKENS, Resume("secret", 30.0))
REQUEST = SessionRequest("encode", INPUT_AUDIO, TOKENS)
HOP = 320
SILENCE = np.zeros(0, np.int16)


def tokens_of(samples: np.ndarray) -> np.ndarray:
    """One token for each whole frame, which depends on all frames before it."""
    frames = samples[: len(samples) // HOP * HOP].reshape(-1, HOP).astype(np.int64)
    return np.cumsum(frames.sum(axis=1) + 1).astype("<u2")


class Server:
    """The engine computes input some time after it arrived."""

    def __init__(self, ready: Ready, max_replay_bytes: int, computed_from: int = 0) -> None:
        self.ready = ready
        self.session = ServerSession(ready, computed_from=computed_from, max_replay_bytes=max_replay_bytes)
        self.commands: deque = deque()
        self._samples = np.zeros(0, np.int16)
        self._given = 0

    def hear(self, command: bytes | ClientMessage) -> None:
        self.session.receive(command)
        if isinstance(command, Clear):
            self.commands.clear()
        if not isinstance(command, Mark):
            self.commands.append((command, self.session.epoch))

    def compute(self) -> None:
        if not self.commands:
            return
        command, epoch = self.commands.popleft()
        if isinstance(command, bytes):
            self._samples = np.append(self._samples, np.frombuffer(command, "<i2"))
            new = tokens_of(self._samples)[self._given :]
            self._given += len(new)
            if len(new):
                self.session.output_ready(new.tobytes(), epoch)
            return
        self._samples, self._given = np.zeros(0, np.int16), 0
        if not isinstance(command, Clear):
            self.session.flush_finished(epoch)


class Line:
    """Messages in flight are lost in both directions when the connection breaks."""

    def __init__(self, seed: int, *, restarts: bool, max_replay_bytes: int = 1 << 20, replay_seconds: float = 60.0):
        self.rng = random.Random(seed)
        self.client = ClientSession(INPUT_AUDIO, TOKENS, replay_seconds)
        self.max_replay_bytes, self.restarts = max_replay_bytes, restarts
        self.server = Server(READY, max_replay_bytes)
        self.up: deque[bytes | ClientMessage] = deque()
        self.down: deque[bytes | ServerMessage] = deque()
        self.heard: dict[int, int] = {}
        self.events: list = []
        self.resumed: list[Ready] = []
        self.sent: list[list[np.ndarray]] = [[]]  # by utterance

    def say(self, *kinds: str) -> None:
        kind = self.rng.choice(kinds)
        if kind == "payload":
            samples = np.frombuffer(self.rng.randbytes(2 * self.rng.randrange(900)), "<i2")
            self.sent[-1].append(samples)
            self.up.append(self.client.send_payload(samples.tobytes()))
            return
        if kind in ("flush", "clear"):
            self.sent.append([])
        message = {"mark": Mark(self.rng.randrange(9)), "flush": Flush(), "clear": Clear(), "end": End()}[kind]
        self.up.append(self.client.send(message))

    def work(self) -> None:
        match self.rng.choice(["hear", "compute", "send", "listen"]):
            case "hear" if self.up:
                self.server.hear(self.up.popleft())
            case "compute":
                self.server.compute()
            case "send" if (message := self.server.session.next_message()) is not None:
                self.down.append(message)
            case "listen" if self.down:
                self.listen()

    def listen(self) -> None:
        before = self.client.output_position
        event = self.client.receive(self.down.popleft())
        if isinstance(event, bytes):
            self.heard |= enumerate(np.frombuffer(event, "<u2").tolist(), before)
        elif isinstance(event, Ready):
            self.resumed.append(event)
        elif event is not None:
            self.events.append((event, self.client.output_position))

    def cut(self) -> None:
        if self.client.ready is None or self.client.is_over:
            return
        for _ in range(self.rng.randrange(len(self.down) + 1)):  # messages that arrived before
            self.listen()
        if self.client.is_over:
            return
        self.client.lose()
        for _ in range(self.rng.randrange(len(self.up) + 1)):
            self.server.hear(self.up.popleft())
        if not self.server.session.is_over and self.rng.random() < 0.5:
            self.server.session.lose()
        for _ in range(self.rng.randrange(3)):
            self.server.compute()
        if self.rng.random() < 0.5 and self.client.state is State.LOST:
            self.say("payload", "mark", "flush")
        self.up.clear()
        self.down.clear()
        self.resume(parse_target(self.client.resuming(REQUEST).target))

    def resume(self, asked: SessionRequest) -> None:
        session = self.server.session
        is_gone = self.restarts and self.rng.random() < 0.5
        if not is_gone and session.can_resume(asked.received, asked.answers):
            session.resume(replace(self.server.ready, resumed="exact"), asked.received, asked.answers)
        else:
            start = asked.utterance or asked.tail
            ready = replace(
                READY,
                session=f"s{self.rng.random()}",
                resumed="exact" if asked.utterance else "approximate",
                input_position=start.input,
                output_position=max(asked.received, start.output),
            )
            self.server = Server(ready, self.max_replay_bytes, start.output)
        self.down.append(self.server.session.next_message())
        self.listen()
        self.up.extend(self.client.unsent)

    def run(self, kinds: list[str], cuts: int, steps: int = 400) -> Done:
        self.down.append(self.server.session.next_message())
        self.listen()
        at = {self.rng.randrange(steps) for _ in range(cuts)}
        for step in range(steps):
            if step in at:
                self.cut()
            elif self.rng.random() < 0.3:
                self.say(*kinds)
            else:
                self.work()
        self.say("end")
        while not self.client.is_over:
            if self.rng.random() < 0.01:
                self.cut()
            self.work()
        return self.events[-1][0]

    @property
    def expected(self) -> list[int]:
        return [
            token for said in self.sent for token in tokens_of(np.concatenate([*said, np.zeros(0, "<i2")])).tolist()
        ]


@pytest.mark.parametrize("restarts", [False, True], ids=["slot lives", "slot may be gone"])
@pytest.mark.parametrize("seed", range(12))
def test_output_and_answers_do_not_depend_on_lost_connections(seed, restarts):
    line = Line(seed, restarts=restarts)
    done = line.run(["payload"] * 5 + ["mark", "flush"], cuts=8)
    assert list(line.heard) == list(range(len(line.expected))), "nothing lost, doubled or out of order"
    assert list(line.heard.values()) == line.expected
    assert done.output == len(line.expected) and done.input == line.client.input_position
    flushed = [at for event, at in line.events if isinstance(event, Flushed)]
    ends = np.cumsum([sum(map(len, said)) // HOP for said in line.sent])
    assert flushed == ends[:-1].tolist()
    assert line.client._log.asked == deque()


@pytest.mark.parametrize("restarts", [False, True], ids=["slot lives", "slot may be gone"])
@pytest.mark.parametrize("seed", range(12))
def test_clears_and_losses_together_keep_positions_consistent(seed, restarts):
    line = Line(seed, restarts=restarts)
    line.run(["payload"] * 5 + ["mark", "flush", "clear"], cuts=8)
    cleared = [at for event, at in line.events if isinstance(event, Cleared)]
    last = max((number for number, said in enumerate(line.sent)), default=0)
    tail = tokens_of(np.concatenate([*line.sent[last], SILENCE])).tolist()
    assert len(cleared) == sum(isinstance(event, Cleared) for event, _ in line.events)
    assert [line.heard[at] for at in sorted(line.heard)][len(line.heard) - len(tail) :] == tail
    assert line.client._log.asked == deque()


@pytest.mark.parametrize("seed", range(6))
def test_a_replay_log_that_is_too_small_causes_neither_gaps_nor_duplicates(seed):
    line = Line(seed, restarts=False, max_replay_bytes=8)
    line.run(["payload"] * 5 + ["mark", "flush"], cuts=8)
    assert list(line.heard.values()) == line.expected
    assert list(line.heard) == list(range(len(line.expected)))


@pytest.mark.parametrize("seed", range(6))
def test_a_client_that_kept_only_recent_input_is_informed_of_gaps(seed):
    line = Line(seed, restarts=True, replay_seconds=0.05)
    done = line.run(["payload"] * 8 + ["mark", "flush"], cuts=8)
    assert done.output == line.client.output_position
    missed = set(range(done.output)) - set(line.heard)
    told = any(ready.resumed == "approximate" for ready in line.resumed)
    assert told or not missed


def test_output_that_a_client_claimed_to_have_cannot_be_requested_again():
    """Otherwise positions would never agree after a clear, and the session would wait for output that never comes."""
    session = ServerSession(replace(READY, output_position=1000), computed_from=0, max_replay_bytes=10_000)
    for message in (None, Mark("a"), Clear()):
        if message is not None:
            session.receive(message)
        while session.next_message() is not None:
            pass
    session.lose()
    assert not session.can_resume(0) and not session.can_resume(999)
    session.resume(READY, 1000)
    assert session.owed_frames == 0


def test_a_lost_done_is_sent_again():
    line = Line(0, restarts=False)
    line.down.append(line.server.session.next_message())
    line.listen()
    line.say("payload")
    line.say("end")
    while line.up:
        line.server.hear(line.up.popleft())
    while line.server.commands:
        line.server.compute()
    while line.server.session.next_message() is not None:
        pass
    assert line.server.session.state is State.DONE
    line.client.lose()
    line.resume(line.client.resuming(REQUEST))
    while (message := line.server.session.next_message()) is not None:
        line.down.append(message)
        line.listen()
    assert isinstance(line.events[-1][0], Done) and list(line.heard.values()) == line.expected


def test_a_log_drops_whole_frames_from_the_front():
    log = ReplayLog(INPUT_AUDIO, TOKENS, 2 * HOP)
    log.add_payload(bytes(2 * (2 * HOP + 100)))
    assert (log.start, log.whole) == (Positions(HOP, 1), False)
    assert b"".join(log.after(0, 0)) == bytes(2 * (HOP + 100))
    log.add_request(Flush())
    log.add_payload(bytes(2 * 5 * HOP))
    assert log.start == Positions(2 * HOP, 2), "not beyond the end of an utterance"
    asked = log.find(Flush)
    log.settle(asked, 2)
    log.add_payload(bytes(2))
    assert log.start.input == 2 * HOP + 100 + 4 * HOP and not log.whole


@pytest.mark.parametrize("seed", range(20))
def test_dropped_units_leave_no_hole_in_a_log(seed):
    rng = random.Random(seed)
    log, samples, marks = ReplayLog(INPUT_AUDIO, TOKENS, 10**6), np.zeros(0, "<i2"), []
    for number in range(30):
        if rng.random() < 0.3:
            log.add_request(Mark(number))
            marks.append((number, len(samples)))
        else:
            more = rng.randbytes(2 * rng.randrange(1, 700))
            samples = np.append(samples, np.frombuffer(more, "<i2"))
            log.add_payload(more)
    position = rng.randrange(len(samples))
    units = rng.randrange(len(samples) - position + 1) if seed else 0
    log.drop(position, units)
    kept = np.delete(samples, slice(position, position + units))
    for start in (0, position, rng.randrange(len(kept) + 1)):
        payload = b"".join(item for item in log.after(start, 0) if isinstance(item, bytes))
        assert payload == kept[start:].tobytes()
    for asked, (number, at) in zip(log.asked, marks, strict=True):
        assert asked.message == Mark(number)
        assert asked.at == at - min(max(0, at - position), units)
        assert asked.is_cut == (at > position and units > 0)
    log.move(7)
    assert b"".join(item for item in log.after(7, 0) if isinstance(item, bytes)) == kept.tobytes()
    log.restart()
    assert log.start == Positions(0, 0) and log.asked[-1].at == marks[-1][1] - min(
        max(0, marks[-1][1] - position), units
    )


@pytest.mark.parametrize("query", ["utterance=5", "tail=1,x", "utterance=0,7&received=6", "answers=-1", "tail=,"])
def test_invalid_positions_are_refused_by_name(query):
    with pytest.raises(ConfigError, match=query.split("=")[0]):
        parse_target(f"/v1/encode?resume=secret&{query}")


def test_a_resume_request_survives_a_round_trip_through_the_url():
    asked = replace(REQUEST, resume="secret", received=7, answers=2, utterance=Positions(640, 2))
    assert parse_target(asked.target) == asked
    asked = replace(REQUEST, resume="secret", received=7, tail=Positions(640, 9))
    assert parse_target(asked.target) == asked
    assert "secret" not in repr(asked)
