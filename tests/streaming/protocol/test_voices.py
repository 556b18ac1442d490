"""Voices in a conversation: the messages, and the client's replay to a server that lost the session."""

import json
from dataclasses import replace

import pytest

from neucodec_streaming.errors import ConfigError, InputError, ProtocolError, TokenError
from neucodec_streaming.protocol.client_session import ClientSession
from neucodec_streaming.protocol.messages import (
    INPUT_AUDIO,
    OUTPUT_AUDIO,
    TOKENS,
    Clear,
    Cleared,
    Flush,
    Flushed,
    Prime,
    Primed,
    Ready,
    Resume,
    encode_message,
    parse_client_message,
)
from neucodec_streaming.protocol.query import parse_target, session_request
from neucodec_streaming.protocol.session import ServerSession

VOICE = tuple(range(100))
READY = Ready("s0", "mini", "default", 5, 5, 215.0, TOKENS, OUTPUT_AUDIO, Resume("token", 30.0))


def test_a_voice_is_sent_by_name_or_by_tokens():
    for message in (Prime("anna"), Prime(tokens=VOICE), Prime(tokens=())):
        assert parse_client_message(encode_message(message)) == message
    assert json.loads(encode_message(Prime("anna"))) == {"type": "prime", "voice": "anna"}


@pytest.mark.parametrize(
    ("fields", "error", "reason"),
    [
        ({}, ProtocolError, "a voice or tokens"),
        ({"voice": "anna", "tokens": [1] * 100}, ProtocolError, "a voice or tokens"),
        ({"voice": 7}, ProtocolError, "expected a name"),
        ({"tokens": "abc"}, ProtocolError, "list of integers"),
        ({"tokens": [1] * 99}, InputError, "99 tokens: use 100 to 750"),
        ({"tokens": [1] * 751}, InputError, "751 tokens"),
        ({"tokens": [1] * 99 + [65_536]}, TokenError, "65536"),
        ({"tokens": [1] * 99 + [True]}, TokenError, "True"),
    ],
)
def test_an_invalid_voice_is_refused_with_the_reason(fields, error, reason):
    with pytest.raises(error, match=reason) as raised:
        parse_client_message(json.dumps({"type": "prime"} | fields))
    assert raised.type is error


def test_the_query_names_a_voice_for_decoding_sessions():
    for path in ("decode", "roundtrip"):
        request = parse_target(f"/v1/{path}?voice=anna")
        assert request.voice == request.anew.voice == "anna" and parse_target(request.target) == request
    for refused in (lambda: parse_target("/v1/encode?voice=anna"), lambda: session_request("encode", voice="anna")):
        with pytest.raises(ConfigError, match="leave it out"):
            refused()


def test_encoding_sessions_refuse_voices_on_both_sides():
    server = ServerSession(replace(READY, input=INPUT_AUDIO, output=TOKENS))
    client = ClientSession(INPUT_AUDIO, TOKENS)
    client.receive(server.next_message())
    for refused in (client.send, server.receive):
        with pytest.raises(InputError, match="an encode session has no voice"):
            refused(Prime(tokens=VOICE))
    assert server.requests == 0 and not client.is_owed


def test_a_voice_is_answered_at_once_and_before_a_later_flush_or_clear():
    server = ServerSession(READY)
    server.next_message()
    for message in (bytes(20), Flush(), Prime(tokens=VOICE), Clear()):
        server.receive(message)
    assert [server.next_message() for _ in range(3)] == [Primed(100), Cleared(10, 0), None]


def opened() -> ClientSession:
    client = ClientSession(TOKENS, OUTPUT_AUDIO)
    client.receive(READY)
    return client


def primed(client: ClientSession, name: str) -> None:
    client.send(Prime(name))
    assert client.receive(Primed(100)) == Primed(100)


def uttered(client: ClientSession, frames: int) -> None:
    client.send_payload(bytes(2 * frames))
    client.send(Flush())
    client.receive(bytes(2 * 480 * frames))
    client.receive(Flushed())


def moved(client: ClientSession, session: str, resumed: str = "approximate") -> list:
    """Returns the messages to a server that lost the session."""
    client.lose()
    asked = client.resuming(session_request("decode"), replay=resumed != "new")
    start = asked.utterance or asked.tail
    at = (0, 0) if start is None else (start.input, max(start.output, asked.received))
    client.receive(replace(READY, session=session, resumed=resumed, input_position=at[0], output_position=at[1]))
    return client.unsent


def test_another_server_gets_the_current_voice_first_and_later_voices_in_order():
    client = opened()
    primed(client, "anna")
    uttered(client, 10)
    primed(client, "ben")
    uttered(client, 10)
    client.send_payload(bytes(10))
    primed(client, "cara")
    client.send_payload(bytes(6))
    client.send(Flush())
    expected = [Prime("ben"), bytes(10), Prime("cara"), bytes(6), Flush()]
    assert moved(client, "s1") == expected
    assert client.receive(Primed(100)) is None and client.receive(Primed(100)) is None  # announced before
    assert moved(client, "s2") == expected
    for _ in range(2):
        assert client.receive(Primed(100)) is None
    client.receive(bytes(2 * 480 * 8))
    assert client.receive(Flushed()) == Flushed()
    assert moved(client, "s3", "new") == [Prime("cara")]


def test_the_same_server_gets_only_unanswered_voices_again():
    client = opened()
    primed(client, "anna")
    client.send_payload(bytes(10))
    client.send(Prime("ben"))
    client.lose()
    client.receive(replace(READY, resumed="exact", input_position=5, requests=1))
    assert client.unsent == [Prime("ben")]
    assert client.receive(Primed(100)) == Primed(100)


def test_replayed_input_is_sent_in_the_voice_of_its_utterance():
    client = ClientSession(TOKENS, OUTPUT_AUDIO, replay_seconds=0.2)
    client.receive(READY)
    primed(client, "anna")
    client.send_payload(bytes(10))
    primed(client, "ben")
    for _ in range(3):
        client.send_payload(bytes(10))
    client.send(Flush())
    assert moved(client, "s1") == [Prime("anna"), bytes(10), Prime("ben"), bytes(10), Flush()]
