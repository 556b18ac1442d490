"""docs/protocol.md agrees with the code: paths, queries, messages and fields, error codes and their status."""

import re
from dataclasses import fields
from pathlib import Path

from neucodec_streaming import errors
from neucodec_streaming.client.errors import ClientError, error_of
from neucodec_streaming.errors import StreamingError
from neucodec_streaming.protocol.messages import CLIENT_MESSAGES, SERVER_MESSAGES
from neucodec_streaming.protocol.query import FORMATS, PATHS, QUERIES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text()


def rows(head: str) -> list[list[str]]:
    """`head` is the name of the table's first column."""
    lines = PAGE[PAGE.index(f"| {head} |") :].splitlines()
    table = lines[2 : next(i for i, line in enumerate([*lines, ""]) if not line.startswith("|"))]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_page_lists_exactly_the_paths_and_queries():
    assert [names(row[0])[0] for row in rows("path")] == list(PATHS)
    assert {name for row in rows("query") for name in names(row[0])} == set(QUERIES)
    assert names(rows("query")[0][1]) == list(FORMATS)


def test_the_page_lists_every_message_with_its_fields():
    said = {}
    for sender, message, _ in rows("from"):
        listed = re.search(r"\{(.*)\}", message)
        said[sender, names(message)[0]] = (
            set(listed[1].replace("...", "").replace(" ", "").split(",")) if listed else set()
        )
    assert {name for sender, name in said if sender == "client"} == set(CLIENT_MESSAGES)
    assert {name for sender, name in said if sender == "server"} == set(SERVER_MESSAGES)
    for name, kind in SERVER_MESSAGES.items():
        known = {field.name for field in fields(kind)}
        assert said["server", name] - {""} <= known
        if name != "stats":
            assert known == said["server", name] - {""}


def test_every_error_code_has_its_status():
    said = {code: int(status) for codes, status, _ in rows("code") for code in names(codes)}
    for code, status in said.items():
        assert error_of(code, "").close_code == status
    on_the_wire = {
        kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, StreamingError)
    }
    never_sent = {"bad_model", "bad_snapshot", "misuse", "speech_lm"}  # used on one side only
    assert on_the_wire - set(said) == never_sent
    assert ClientError.code not in said
