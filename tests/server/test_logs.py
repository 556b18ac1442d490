import json
import logging
import sys

from neucodec_streaming.server.logs import JsonFormatter


def record(message: str, *arguments, **more) -> logging.LogRecord:
    made = logging.makeLogRecord(
        {"name": "neucodec_streaming.server.app", "levelno": logging.INFO, "levelname": "INFO"} | more
    )
    made.msg, made.args = message, arguments
    return made


def test_a_record_is_one_line_of_json():
    line = JsonFormatter().format(record("two\nlines of %s", "caf\u00e9", session="a1", created=0.5))
    assert "\n" not in line and json.loads(line) == {
        "time": "1970-01-01T00:00:00.500+00:00",
        "level": "info",
        "logger": "neucodec_streaming.server.app",
        "message": "two\nlines of caf\u00e9",
        "session": "a1",
    }


def test_a_record_outside_a_session_has_no_session_key():
    assert "session" not in json.loads(JsonFormatter().format(record("stopping")))


def test_an_exception_is_logged_with_its_traceback():
    try:
        raise ValueError("wrong")
    except ValueError:
        line = JsonFormatter().format(record("failed", exc_info=sys.exc_info()))
    assert "\n" not in line and "ValueError: wrong" in json.loads(line)["traceback"]
