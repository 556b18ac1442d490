"""docs/mqtt.md agrees with the code and with the measured results."""

import json
import re
from dataclasses import fields
from pathlib import Path

from neucodec_streaming.client.cli import _parser
from neucodec_streaming.protocol.mqtt.receiver import Loss
from neucodec_streaming.protocol.mqtt.topics import (
    AUDIO,
    CONTROL,
    ROOT,
    SPEECH,
    STATUS,
    TOKENS,
    OpenRequest,
    parse_request,
)
from neucodec_streaming.server.settings.fields import Settings

ROOT_FOLDER = Path(__file__).resolve().parents[2]
PAGE = (ROOT_FOLDER / "docs" / "mqtt.md").read_text()
RESULTS = (ROOT_FOLDER / "docs" / "results.md").read_text()
MEASURED = json.loads((ROOT_FOLDER / "benchmarks" / "results" / "mqtt.json").read_text())


def rows(head: str, page: str = PAGE) -> list[list[str]]:
    """`head` starts the table's header."""
    lines = page[page.index(f"| {head} |") :].splitlines()
    table = lines[2 : next(i for i, line in enumerate([*lines, ""]) if not line.startswith("|"))]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table]


def test_the_page_lists_every_topic():
    named = [row[0].strip("`") for row in rows("topic")]
    assert named == [f"{ROOT}/SESSION/{name}" for name in (AUDIO, TOKENS, SPEECH, CONTROL, STATUS)]


def test_the_page_lists_every_field_of_open_with_its_default():
    said = {row[0].strip("`"): row[1] for row in rows("field of `open`")}
    defaults = {item.name: "its own" if item.default is None else str(item.default) for item in fields(OpenRequest)}
    assert said == {name: value for name, value in defaults.items() if name != "target"}


def test_every_example_request_is_valid():
    for row in rows("request"):
        text = row[0].strip("`").replace("P,", "1,").replace("P}", "1}").replace("ID", '"a"').replace(", ...", "")
        assert parse_request(text.encode())


def test_every_count_of_loss_is_named():
    told = set(re.findall(r"`(\w+_(?:units|frames))`", PAGE))
    assert told >= {item.name for item in fields(Loss)} - {"frames"}


def test_the_page_lists_settings_and_options():
    known = {f"--{item.name.replace('_', '-')}" for item in fields(Settings)}
    assert set(re.findall(r"--mqtt[a-z-]*", PAGE)) <= known
    for line in re.findall(r"^    neucodec (mqtt-\w+ [^#\n]*)", PAGE, re.M):
        assert _parser().parse_args(line.split())


def test_the_tables_equal_the_results():
    found = {(row["damage"], str(row["redundancy"])): row for row in MEASURED["loss"]["measured"]}
    drops = [row for row in rows("link", RESULTS) if row[0].startswith("drop")]
    assert len(drops) == 6
    for link, redundancy, lost, *scores in drops:
        row = found[link.replace(" %", "%"), redundancy]
        assert float(lost.removesuffix(" %")) == round(100 * row["lost"], 1)
        ways = ("silence", "repeated", "concealed")
        assert [float(score) for score in scores] == [round(row[way], 3) for way in ways]
    wire = {(str(row["qos"]), str(row["tokens"]), str(row["redundancy"])): row for row in MEASURED["wire"]["measured"]}
    for *way, mqtt, whole in rows("QoS", RESULTS)[:6]:
        row = wire[tuple(way)]
        assert (mqtt, whole) == (f"{row['mqtt_kbit_s']:.1f} kbit/s", f"{row['tcp_ip_kbit_s']:.1f} kbit/s")
    many = MEASURED["many"]["measured"]
    assert f"{many['response_p50_ms']:.0f} ms (p50) and {many['response_p99_ms']:.0f} ms (p99)" in RESULTS.replace(
        "\n", " "
    )
    assert many["tokens"] == many["tokens_due"]
    troubles = [row for part in ("killed", "restarted") for row in MEASURED[part]["measured"]]
    assert all(row["lost_tokens"] == row["told_tokens"] for row in troubles)
    assert max(row["takeover_s"] for row in MEASURED["killed"]["measured"]) < 2
