import json
from contextlib import suppress
from dataclasses import MISSING, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neucodec_streaming.errors import AudioError, ProtocolError, TokenError
from neucodec_streaming.protocol.messages import (
    INPUT_AUDIO,
    SERVER_MESSAGES,
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
    Primed,
    Ready,
    Resume,
    Stats,
    StreamFormat,
    encode_message,
    parse_client_message,
    parse_server_message,
)

READY = Ready("s1", "mini", "default", 5, 5, 215.0, INPUT_AUDIO, TOKENS, Resume("t", 30.0), "exact")
FROM_SERVER = [
    READY,
    Flushed(),
    Cleared(320, 1),
    Marked("a", True),
    Marked(7),
    Primed(250),
    Done(650, 2, 10),
    Stats(40.0, 0.5, 640, 1),
    Failure("bad_audio", "why"),
]


@pytest.mark.parametrize("message", [Flush(), Clear(), Mark("x"), Mark(12), End()])
def test_a_clients_message_survives_the_wire(message):
    assert parse_client_message(encode_message(message)) == message


@pytest.mark.parametrize("message", FROM_SERVER)
def test_a_servers_message_survives_the_wire(message):
    assert parse_server_message(encode_message(message)) == message


def test_ready_has_the_specified_fields():
    body = json.loads(encode_message(READY))
    assert set(body) == {
        "type",
        "session",
        "model",
        "profile",
        "frame_ms",
        "chunk_frames",
        "lookahead_frames",
        "latency_ms",
        "input",
        "output",
        "resume",
        "resumed",
        "input_position",
        "output_position",
        "requests",
        "capacity",
    }
    assert body["type"] == "ready" and body["frame_ms"] == 20
    assert body["input"] == {"kind": "audio", "format": "s16le", "rate": 16000}
    assert body["output"] == {"kind": "tokens", "format": "u16le", "rate": 50}
    assert body["resume"] == {"token": "t", "seconds": 30.0}


@pytest.mark.parametrize(
    "text", ['{"type":"hello"}', "{}", "[]", "{", '"flush"', '{"type":7}', '{"type":["flush"]}', "[" * 100_000, ""]
)
def test_invalid_client_messages_are_refused(text):
    with pytest.raises(ProtocolError):
        parse_client_message(text)


def test_an_unknown_type_is_named_with_the_known_ones():
    with pytest.raises(ProtocolError, match=r"'hello'.*flush.*clear.*end.*mark"):
        parse_client_message('{"type":"hello"}')


@pytest.mark.parametrize("mark_id", ["null", "1.5", "true", "[]", "{}", '"' + "x" * 257 + '"', str(1 << 53)])
def test_a_mark_needs_a_short_id(mark_id):
    with pytest.raises(ProtocolError, match="id"):
        parse_client_message(f'{{"type":"mark","id":{mark_id}}}')


def test_unknown_fields_are_ignored_in_both_directions():
    assert parse_client_message('{"type":"flush","colour":"blue"}') == Flush()
    assert parse_server_message('{"type":"flushed","colour":"blue"}') == Flushed()


def test_clients_ignore_unknown_message_types():
    assert parse_server_message('{"type":"weather","sun":1}') is None


@pytest.mark.parametrize("message", [READY, Cleared(1, 2), Done(1, 2, 3), Marked("a"), Failure("a", "b")])
def test_a_server_message_that_lacks_a_field_is_refused(message):
    for field in fields(message):
        if field.default is not MISSING:
            continue
        body = json.loads(encode_message(message))
        del body[field.name]
        with pytest.raises(ProtocolError):
            parse_server_message(json.dumps(body))


def test_a_server_message_with_a_wrong_type_is_refused():
    for text in ('{"type":"cleared","input":"1","output":2}', '{"type":"cleared","input":true,"output":2}'):
        with pytest.raises(ProtocolError, match="input"):
            parse_server_message(text)


def test_payload_is_counted_in_whole_units():
    assert TOKENS.count(b"1234") == 2
    assert StreamFormat("audio", "f32le", 16_000).count(bytes(8)) == 2
    with pytest.raises(TokenError, match="3 bytes"):
        TOKENS.count(b"123")
    with pytest.raises(AudioError, match="1 bytes"):
        INPUT_AUDIO.count(b"1")


def test_every_server_message_is_known_by_its_type():
    assert {type(message) for message in FROM_SERVER} == set(SERVER_MESSAGES.values())


@given(st.text(max_size=200))
def test_any_text_is_either_understood_or_refused(text):
    for parse in (parse_client_message, parse_server_message):
        with suppress(ProtocolError):
            parse(text)
