"""The recorded conversations (tests/data/protocol-vectors.json), which the JavaScript client is tested with too."""

import json
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest

from neucodec_streaming.errors import InputError, LocalProtocolError, ProtocolError
from neucodec_streaming.protocol.client_session import ClientSession
from neucodec_streaming.protocol.messages import (
    Prime,
    Ready,
    client_message_from_json,
    encode_message,
    parse_client_message,
    parse_server_message,
)
from neucodec_streaming.protocol.query import SessionRequest, parse_target
from neucodec_streaming.protocol.session import ServerSession

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "protocol-vectors.json").read_text())
CONVERSATIONS = {conversation["name"]: conversation for conversation in VECTORS["conversations"]}
USUAL = {
    "session": "s1",
    "model": "mini",
    "profile": "default",
    "chunk_frames": 5,
    "lookahead_frames": 5,
    "latency_ms": 215.0,
    "resume": {"token": "t1", "seconds": 30},
}
KEPT_BYTES = 1 << 20
VOICES = {"anna": tuple(range(250)), "ben": tuple(range(100))}
ERRORS = {"local": LocalProtocolError, "remote": ProtocolError, "input": InputError}


def units(span: list[int]) -> bytes:
    return np.arange(*span).astype("<u2").tobytes()


def ready_of(kind: str, fields: dict) -> Ready:
    ready = parse_server_message(json.dumps({"type": "ready"} | USUAL | VECTORS["formats"][kind] | fields))
    assert isinstance(ready, Ready)
    return ready


def asked_by(query: dict[str, str], kind: str) -> SessionRequest:
    request = parse_target(f"/v1/{kind}?" + "&".join(f"{name}={value}" for name, value in query.items()))
    assert request is not None
    return request


class Client:
    def __init__(self, kind: str) -> None:
        request = parse_target(f"/v1/{kind}")
        assert request is not None
        self.request = request
        self.session = ClientSession(request.input, request.output)

    def take(self, step: dict) -> object:
        match step:
            case {"client_units": span}:
                return self.session.send_payload(units(span))
            case {"client": message}:
                return json.loads(encode_message(self.session.send(parse_client_message(json.dumps(message)))))
            case {"server_units": span} | {"crossing_units": span}:
                return self.session.receive(units(span))
            case {"server": message}:
                return self.session.receive(parse_server_message(json.dumps(message)))
            case {"ready": fields}:
                return self.session.receive(ready_of(self.request.kind, fields))
        raise AssertionError(f"no step: {step}")

    def check(self, step: dict) -> None:
        if "lost" in step:
            self.session.lose()
            target = self.session.resuming(self.request, replay=not step.get("live", False)).target
            # a field that is 0 may be left out
            assert dict(parse_qsl(urlsplit(target).query)) | {"received": step["lost"]["received"]} == step["lost"]
            return
        given = self.take(step)
        match step:
            case {"ignored": True} | {"crossing_units": _}:
                assert given is None
            case {"client_units": span} | {"heard": span} | {"server_units": span}:
                assert given == units(span)
            case {"max_age": age, "dropped": dropped}:
                assert self.session.drop_stale(age) == dropped
            case {"client": message}:
                assert given == message
            case {"server": message}:
                assert given == parse_server_message(json.dumps(message))
        if "unsent" in step:
            unsent = self.session.unsent
            sent = [item if isinstance(item, bytes) else json.loads(encode_message(item)) for item in unsent]
            assert sent == [units(item) if isinstance(item, list) else item for item in step["unsent"]]


class Server:
    """The engine answers when the conversation says so."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.session = ServerSession(ready_of(kind, {}), max_replay_bytes=KEPT_BYTES)
        self.computed = 0
        self.asked: SessionRequest | None = None

    def check(self, step: dict) -> None:
        match step:
            case {"arrives": False, "client": _} | {"arrives": False, "client_units": _}:
                pass
            case {"client": message}:
                self.receive(message)
                if message["type"] == "clear":
                    self.computed = self.session.output_position
            case {"client_units": span}:
                self.session.receive(units(span))
            case {"server_units": span} | {"crossing_units": span}:
                if not self.session.queued_units:
                    self.session.output_ready(units([self.computed, span[1]]), self.session.epoch)
                    self.computed = span[1]
                assert self.session.next_message() == units(span)
            case {"server": message}:
                if message["type"] in ("flushed", "done") and not self.session.queued_messages:
                    self.session.flush_finished(self.session.epoch)
                said = self.session.next_message()
                assert said is not None and json.loads(encode_message(said)) == message
            case {"lost": query}:
                self.session.lose()
                self.asked = asked_by(query, self.kind)
            case {"ready": fields}:
                self.open(fields)
                for item in step.get("unsent", ()):
                    self.receive(item)

    def receive(self, item: list[int] | dict) -> None:
        """A voice already has its tokens, as in a server."""
        message = units(item) if isinstance(item, list) else client_message_from_json(item)
        if isinstance(message, Prime) and message.voice is not None:
            message = Prime(tokens=VOICES[message.voice])
        self.session.receive(message)

    def open(self, fields: dict) -> None:
        ready = ready_of(self.kind, fields)
        if self.asked is not None and fields.get("input_position") == self.session.input_position:
            assert self.session.can_resume(self.asked.received, self.asked.answers)
            self.session.resume(ready, self.asked.received, self.asked.answers)
        elif self.asked is not None:
            start = self.asked.utterance or self.asked.tail
            assert start is not None and start.input == ready.input_position
            self.session = ServerSession(ready, computed_from=start.output, max_replay_bytes=KEPT_BYTES)
            self.computed = start.output
        assert self.session.next_message() == ready


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_client_replays_the_recorded_conversations(name):
    conversation = CONVERSATIONS[name]
    client = Client(conversation["kind"])
    for step in conversation["steps"]:
        if "error" in step:
            with pytest.raises(ERRORS[step["error"]]):
                client.take(step)
            return
        if step.get("arrives", True) or "client" in step or "client_units" in step:
            client.check(step)
    positions = {"input": client.session.input_position, "output": client.session.output_position}
    assert positions == conversation["after"]


@pytest.mark.parametrize("name", [name for name, each in CONVERSATIONS.items() if not each.get("client_only")])
def test_the_server_replays_the_recorded_conversations(name):
    conversation = CONVERSATIONS[name]
    steps = [step for step in conversation["steps"] if "error" not in step]
    for i, step in enumerate(steps):
        if "crossing_units" in step:
            steps[i - 1], steps[i] = steps[i], steps[i - 1]
    server = Server(conversation["kind"])
    for step in steps:
        server.check(step)
    assert server.session.next_message() is None
