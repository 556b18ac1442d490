"""Python's client and the page's through random conversations with lost connections: both resend the same."""

import json
import random
import shutil

import pytest

from neucodec_streaming.protocol.client_session import ClientSession
from neucodec_streaming.protocol.messages import (
    OUTPUT_AUDIO,
    TOKENS,
    Clear,
    Cleared,
    ClientMessage,
    Flush,
    Flushed,
    Mark,
    Marked,
    Prime,
    Primed,
    Ready,
    Resume,
    encode_message,
    message_to_json,
)
from neucodec_streaming.protocol.query import SessionRequest
from tests.server.web.test_modules import evaluate

REPLAY_SECONDS = 0.5
MAX_AGE = 10
SCRIPT = """
    import { ClientSession } from "./protocol.js";
    const told = conversations.map((steps) => {
        const session = new ClientSession("decode", {}, keptSeconds);
        return steps.flatMap(([verb, value]) => {
            if (verb === "input") session.sendPayload(new Uint8Array(2 * value).fill(session.inputPosition % 251));
            if (verb === "request") session.send(JSON.parse(value));
            if (verb === "output") return [session.receive(new Uint8Array(2 * value))?.length ?? 0];
            if (verb === "message") session.receive(value);
            if (verb !== "lose") return [];
            session.lose();
            const [ready, maxAge] = value;
            const query = Object.entries(session.resuming(maxAge === null));
            const fields = query.map(([name, each]) => `${name}=${each}`).sort();
            session.receive(ready);
            const dropped = session.dropStale(maxAge ?? Infinity);
            const unsent = session.unsent.map((item) => (typeof item === "string" ? JSON.parse(item) : [...item]));
            return [fields, dropped, session.staleUntil, unsent];
        });
    });
    console.log(JSON.stringify(told));
"""


class Conversation:
    """Python's side and the steps of the conversation; `told` is its state after every loss."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.session = ClientSession(TOKENS, OUTPUT_AUDIO, REPLAY_SECONDS)
        self.waiting: list[tuple[ClientMessage, int]] = []
        self.steps: list[tuple[str, object]] = []
        self.told: list[object] = []
        self.sessions = 0
        self.hear(self.ready(0, 0, 0))

    def ready(self, input: int, output: int, requests: int, resumed: str = "exact") -> Ready:
        return Ready(
            f"s{self.sessions}", "mini", "default", 5, 5, 215.0, TOKENS, OUTPUT_AUDIO, Resume("token", 30.0), resumed,
            input, output, requests,
        )  # fmt: skip

    def hear(self, message) -> None:
        self.steps.append(("message", encode_message(message)))
        self.session.receive(message)

    def say(self) -> None:
        count = self.rng.choice([1, 2, 3, 7, 20])
        self.steps.append(("input", count))
        self.session.send_payload(bytes([self.session.input_position % 251]) * (2 * count))

    def ask(self) -> None:
        message = self.rng.choice(
            [Flush(), Flush(), Clear(), Mark(self.rng.randrange(4)), Mark("m"), Prime("a"), Prime("b")]
        )
        self.steps.append(("request", encode_message(message)))
        self.session.send(message)
        self.waiting.append((message, self.session.input_position))

    def listen(self) -> None:
        count = 480 * self.rng.randrange(1, 9)
        self.steps.append(("output", count))
        given = self.session.receive(bytes(2 * count))
        self.told.append(len(given) if isinstance(given, bytes) else 0)

    def answer(self) -> None:
        if not self.waiting:
            return
        asked, position = self.waiting.pop(0)
        if isinstance(asked, Clear):
            self.hear(Cleared(position, self.session.output_position))
        else:
            answers = {Mark: lambda: Marked(asked.id), Prime: lambda: Primed(100), Flush: Flushed}
            self.hear(answers[type(asked)]())

    def lose(self) -> None:
        self.session.lose()
        is_live = self.rng.random() < 0.3
        asked = self.session.resuming(SessionRequest("decode", TOKENS, OUTPUT_AUDIO), replay=not is_live)
        start = asked.utterance or asked.tail
        query = {"resume": asked.resume, "received": asked.received, "answers": asked.answers}
        if start is not None:
            query["utterance" if asked.utterance else "tail"] = f"{start.input},{start.output}"
        if self.rng.random() < 0.5:
            self.sessions += 1
            at = (0, 0) if start is None else (start.input, max(asked.received, start.output))
            ready = self.ready(*at, 0, "new" if start is None else "exact")
        else:
            begin, sent = self.session._log.start.input, self.session.input_position
            ready = self.ready(self.rng.randint(begin, sent), asked.received, self.rng.randrange(3))
        age = MAX_AGE if is_live else None
        self.steps.append(("lose", [encode_message(ready), age]))
        self.session.receive(ready)
        dropped = self.session.drop_stale(age)
        unsent = [list(item) if isinstance(item, bytes) else message_to_json(item) for item in self.session.unsent]
        self.told += [sorted(f"{name}={value}" for name, value in query.items()), dropped, self.session.stale_until]
        self.told.append(unsent)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed (Debian's nodejs)")
def test_python_and_javascript_clients_resume_and_resend_identically():
    conversations = []
    for seed in range(15):
        conversation = Conversation(random.Random(seed))
        moves = [conversation.say, conversation.ask, conversation.listen, conversation.answer, conversation.lose]
        for move in conversation.rng.choices(moves, weights=[8, 2, 3, 2, 1], k=120):
            move()
        conversations.append(conversation)
    steps = json.dumps([conversation.steps for conversation in conversations])
    told = evaluate(f"const conversations = {steps}, keptSeconds = {REPLAY_SECONDS};\n{SCRIPT}")
    assert told == [conversation.told for conversation in conversations]
    assert any("tail=" in str(conversation.told) for conversation in conversations)
