"""docs/asyncapi.yaml agrees with the code: paths, queries, messages with fields and types, codes and statuses."""

import http.client
import json
import re
from contextlib import nullcontext
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from neucodec_streaming import errors
from neucodec_streaming.config import FRAME_MS
from neucodec_streaming.errors import StreamingError
from neucodec_streaming.protocol.messages import (
    CLIENT_MESSAGES,
    MAX_MARK_ID_LENGTH,
    SERVER_MESSAGES,
    UNIT_BYTES,
    ClientMessage,
    Resume,
    StreamFormat,
    encode_message,
    parse_client_message,
    parse_server_message,
)
from neucodec_streaming.protocol.query import FORMATS, MAX_RATE, MIN_RATE, PATHS, QUERIES, parse_target
from neucodec_streaming.server.http.responses import status_and_headers
from neucodec_streaming.server.sessions.session import RESTART_STATUS
from tests.server.hosting import hosted
from tests.streaming.engine.fake import FakeRunner

DOCUMENT = yaml.safe_load((Path(__file__).resolve().parents[2] / "docs" / "asyncapi.yaml").read_text())
CLIENT = {kind.type: kind for kind in ClientMessage.__args__}
BINARY = ("audio", "tokens")
OF_ONE_SIDE = {"bad_model", "bad_snapshot", "misuse", "speech_lm"}
"""Codes that are never sent."""
JSON_TYPES: dict[Any, str | list[str]] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    str | int: ["string", "integer"],
    str | None: "string",
    tuple[int, ...] | None: "array",
    StreamFormat: "object",
    Resume: "object",
}


def at(reference: str) -> Any:
    found = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def resolved(node: Any) -> Any:
    if isinstance(node, dict):
        return resolved(at(node["$ref"])) if "$ref" in node else {key: resolved(value) for key, value in node.items()}
    return [resolved(item) for item in node] if isinstance(node, list) else node


MESSAGES = {name: resolved(message) for name, message in DOCUMENT["components"]["messages"].items()}
SCHEMAS = {name: resolved(schema) for name, schema in DOCUMENT["components"]["schemas"].items()}
QUERY = resolved(DOCUMENT["components"]["channelBindings"]["session"])["ws"]["query"]["properties"]
WIRE_ERRORS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, StreamingError) and kind.code not in OF_ONE_SIDE
]


def said_by(action: str) -> dict[str, Any]:
    """Returns name and class of the text messages in that direction, the same in every channel."""
    lists = [
        {reference["$ref"].split("/")[-1] for reference in operation["messages"]} - set(BINARY)
        for operation in DOCUMENT["operations"].values()
        if operation["action"] == action
    ]
    assert len(lists) == len(PATHS) and all(names == lists[0] for names in lists)
    known = CLIENT if action == "receive" else SERVER_MESSAGES
    return {name: known[MESSAGES[name]["payload"]["properties"]["type"]["const"]] for name in lists[0]}


def check_fields(schema: dict[str, Any], kind: type) -> None:
    properties = {name: property for name, property in schema["properties"].items() if name != "type"}
    assert set(properties) == {field.name for field in fields(kind)}, kind
    for field in fields(kind):
        assert properties[field.name]["type"] == JSON_TYPES[field.type], (kind, field.name)
        if is_dataclass(field.type):
            check_fields(properties[field.name], field.type)


def test_every_path_is_a_channel_with_its_payload_in_both_directions():
    assert {channel["address"]: name for name, channel in DOCUMENT["channels"].items()} == PATHS
    for operation in DOCUMENT["operations"].values():
        channel = at(operation["channel"]["$ref"])
        request = parse_target(channel["address"])
        stream = request.input if operation["action"] == "receive" else request.output
        names = [reference["$ref"].split("/")[-1] for reference in operation["messages"]]
        assert [name for name in names if name in BINARY] == [stream.kind]
        assert all(set(names) <= set(channel["messages"]) for name in names)
    assert all(set(channel["messages"]) == set(MESSAGES) for channel in DOCUMENT["channels"].values())


def test_the_queries_are_complete_and_allowed_values_parse():
    assert set(QUERY) == set(QUERIES)
    for name in ("input_format", "output_format"):
        assert QUERY[name]["enum"] == list(FORMATS) and QUERY[name]["default"] == FORMATS[0]
    for name in ("input_rate", "output_rate"):
        rate = QUERY[name]
        assert (rate["minimum"], rate["maximum"]) == (MIN_RATE, MAX_RATE)
        assert rate["multipleOf"] == 1000 // FRAME_MS
    for name, schema in QUERY.items():
        for value in schema.get("enum", []):
            assert parse_target(f"/v1/roundtrip?{name}={value}")


def test_query_positions_are_two_numbers_that_the_code_parses():
    for name in ("utterance", "tail"):
        for value, is_right in (("0,0", True), ("320,1", True), ("320", False), ("-1,0", False), ("1,1,1", False)):
            assert (re.fullmatch(QUERY[name]["pattern"], value) is not None) is is_right
            with nullcontext() if is_right else pytest.raises(errors.ConfigError):
                parse_target(f"/v1/encode?received=1&{name}={value}")


@pytest.mark.parametrize("action, known", [("receive", set(CLIENT_MESSAGES)), ("send", set(SERVER_MESSAGES))])
def test_the_document_lists_exactly_the_messages_with_their_fields_and_types(action, known):
    said = said_by(action)
    assert {kind.type for kind in said.values()} == known and len(said) == len(known)
    for name, kind in said.items():
        schema = MESSAGES[name]["payload"]
        check_fields(schema, kind)
        assert schema["required"] == ["type", *(field.name for field in fields(kind) if field.default is MISSING)]


def test_every_schema_is_used_by_a_message():
    assert set(MESSAGES) == {*BINARY, *said_by("receive"), *said_by("send")}
    shared = {"streamFormat", "resume"}
    assert set(SCHEMAS) == {*MESSAGES} - set(BINARY) | shared | {"audioFormat", "audioRate", "position"}
    assert set(SCHEMAS["streamFormat"]["properties"]["format"]["enum"]) == set(UNIT_BYTES)
    assert SCHEMAS["mark"]["properties"]["id"]["maxLength"] == MAX_MARK_ID_LENGTH


def test_the_examples_survive_a_round_trip_through_the_code():
    for action, parse in (("receive", parse_client_message), ("send", parse_server_message)):
        for name in said_by(action):
            for example in MESSAGES[name]["examples"]:
                written = json.loads(encode_message(parse(json.dumps(example["payload"]))))
                assert written == example["payload"]
                Draft7Validator(MESSAGES[name]["payload"]).validate(written)


def test_a_schema_refuses_what_the_code_refuses():
    for name, wrong in (
        ("mark", {"type": "mark"}),
        ("mark", {"type": "mark", "id": 257 * "x"}),
        ("prime", {"type": "prime"}),
        ("prime", {"type": "prime", "voice": "anna", "tokens": [7] * 100}),
        ("end", {"type": "go"}),
    ):
        assert not Draft7Validator(MESSAGES[name]["payload"]).is_valid(wrong)
        with pytest.raises(errors.ProtocolError):
            parse_client_message(json.dumps(wrong))


def test_the_documented_error_codes_and_close_statuses_equal_those_of_the_code():
    said = {code: int(status) for status, row in DOCUMENT["x-close-statuses"].items() for code in row["codes"]}
    assert said == {kind.code: kind.close_code for kind in WIRE_ERRORS}
    without = {int(status) for status, row in DOCUMENT["x-close-statuses"].items() if not row["codes"]}
    assert without == {1000, RESTART_STATUS}


def test_every_http_answer_is_as_documented_with_its_headers():
    answers = dict(DOCUMENT["x-http-answers"])
    assert answers.pop("404")["codes"] == ["bad_path"]
    by_code = {kind.code: kind for kind in WIRE_ERRORS}
    for status, row in answers.items():
        for code in row["codes"]:
            found, headers = status_and_headers(by_code[code]("why"))
            assert (str(found.value), list(headers)) == (status, row.get("headers", []))
    with_codes = {status for status, row in answers.items() if row["codes"]}
    assert {str(status_and_headers(kind("why"))[0].value) for kind in WIRE_ERRORS} == with_codes


def test_requests_that_are_not_handshakes_get_answers_without_an_error_code():
    asked = {405: ("POST", {}), 426: ("GET", {}), 431: ("GET", {"X-Long": "x" * 20_000})}
    with hosted(FakeRunner()) as host:
        for status, (method, headers) in asked.items():
            connection = http.client.HTTPConnection(host.url.removeprefix("ws://"), timeout=10)
            connection.request(method, "/v1/encode", headers=headers)
            response = connection.getresponse()
            row = DOCUMENT["x-http-answers"][str(status)]
            assert (response.status, row["codes"]) == (status, [])
            assert all(name in response.headers for name in row.get("headers", []))
            response.read()
            connection.close()
    assert {status for status, row in DOCUMENT["x-http-answers"].items() if not row["codes"]} == set(map(str, asked))
