"""The README's latencies, commands and exit codes agree with the code, and its examples are valid Python."""

import ast
import re

import pytest

from neucodec_streaming.client import cli
from neucodec_streaming.client.cli import EXIT_CODES, _parser
from neucodec_streaming.config import StreamConfig, roundtrip_latency_ms
from neucodec_streaming.server.settings.fields import PROFILES, Settings
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def rows(start: str) -> list[list[str]]:
    """`start` starts the table's header."""
    lines = README[README.index(f"| {start} |") :].splitlines()
    table = lines[2 : next(i for i, line in enumerate([*lines, ""]) if not line.startswith("|"))]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table]


@pytest.mark.parametrize("row", rows("profile"), ids=lambda row: row[0])
def test_the_latencies_equal_those_of_the_profiles(row):
    name = re.match(r"`(\w+)`", row[0])[1]
    chunk, lookahead = PROFILES[name] or (5, 5)
    config = StreamConfig(chunk_frames=chunk, lookahead_frames=lookahead)
    times = (chunk * 20, lookahead * 20, config.encode_latency_ms, config.decode_latency_ms)
    assert row[1:] == [f"{ms:g} ms" for ms in (*times, roundtrip_latency_ms(config, config))]


@pytest.mark.parametrize("row", rows("setting"), ids=lambda row: row[0])
def test_the_limits_equal_the_settings_defaults(row):
    for name in re.findall(r"`(\w+)`", row[0]):
        default = getattr(Settings(), name)
        assert row[1].split(" (")[0] == ("none" if default is None else f"{round(default):,}")


def test_every_profile_of_the_server_has_a_row():
    assert {re.match(r"`(\w+)`", row[0])[1] for row in rows("profile")} == set(PROFILES)


def test_the_command_accepts_every_example():
    lines = re.findall(r"^    (?:some_tts \| )?neucodec (.*?)(?: +#.*)?$", README, re.MULTILINE)
    assert len(lines) == 7
    for line in lines:
        assert _parser().parse_args(line.replace('"Good morning."', "text").split()) is not None


def test_every_python_example_compiles():
    examples = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        ast.parse(example)


def test_the_exit_codes_equal_those_of_the_command():
    codes = {int(row[0]): row[1] for row in rows("code")}
    assert set(codes) == {code for _, code in EXIT_CODES} | {0, 1, cli.INTERRUPTED}
