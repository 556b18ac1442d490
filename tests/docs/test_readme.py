"""What the README says is so: limits, latencies, exit codes, options."""

import re
from pathlib import Path

import pytest

from neucodec_streaming.client import cli
from neucodec_streaming.client.cli import EXIT_CODES, _parser
from neucodec_streaming.config import StreamConfig, roundtrip_latency_ms
from neucodec_streaming.server.settings.fields import PROFILES, Settings

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


def rows(start: str) -> list[list[str]]:
    """The cells of the table whose head starts with `start`."""
    lines = README[README.index(f"| {start} |") :].splitlines()
    table = lines[2 : next(i for i, line in enumerate([*lines, ""]) if not line.startswith("|"))]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table]


@pytest.mark.parametrize("row", rows("profile"), ids=lambda row: row[0])
def test_the_latencies_are_those_of_the_profiles(row):
    name = re.match(r"`(\w+)`", row[0])[1]
    chunk, lookahead = PROFILES[name] or (5, 5)
    config = StreamConfig(chunk_frames=chunk, lookahead_frames=lookahead)
    times = (chunk * 20, lookahead * 20, config.encode_latency_ms, config.decode_latency_ms)
    assert row[1:] == [f"{ms:g} ms" for ms in (*times, roundtrip_latency_ms(config, config))]


def test_every_profile_of_the_server_has_its_row():
    assert {re.match(r"`(\w+)`", row[0])[1] for row in rows("profile")} == set(PROFILES)


@pytest.mark.parametrize("row", rows("setting"), ids=lambda row: row[0])
def test_the_limits_are_those_of_the_settings(row):
    for flag, default in zip(re.findall(r"--([a-z-]+)", row[0]), row[1].split(", "), strict=True):
        value = getattr(Settings(), flag.replace("-", "_"))
        shown = "none" if value is None else f"{value:g}" if not isinstance(value, tuple) and value < 1e5 else None
        shown = shown or (",".join(map(str, value)) if isinstance(value, tuple) else str(value))
        assert default == shown


def test_every_command_in_the_quick_start_is_understood():
    block = README[README.index("    neucodec encode") : README.index("`--server URL`")]
    lines = [line.split("#")[0].split("|")[-1].split("<|")[0].split() for line in block.strip().splitlines()]
    for words in lines:
        assert words[0] == "neucodec"
        assert _parser().parse_args(words[1:]) is not None
    assert len(lines) == 7


def test_the_exit_codes_are_those_of_the_command():
    codes = README[README.index("Exit codes:") :].split("\n\n")[0]
    numbers = {int(code) for code in re.findall(r"(?<![\d.])(\d+)\s[a-z]", codes)}
    assert numbers == {code for _, code in EXIT_CODES} | {0, 1, cli.INTERRUPTED}
    assert cli.__doc__ is not None
    told = cli.__doc__[cli.__doc__.index("Exit codes:") :].rstrip(".\n")
    assert codes.removesuffix(" by Ctrl-C.").split() == told.split()
