"""The pictures of the page show what the page has."""

import json

from benchmarks.browser.screenshots import PICTURES, RECORD
from benchmarks.mouth_to_ear.__main__ import ROOT
from neucodec_streaming.server.settings.fields import PROFILES


def test_the_profiles_in_the_pictures_equal_the_servers():
    default = json.loads((ROOT / "streaming" / "assets" / "nano" / "stream.json").read_text())
    pairs = {name: pair or (default["chunk_frames"], default["lookahead_frames"]) for name, pair in PROFILES.items()}
    shown = json.loads(RECORD.read_text())["profiles"]
    assert {name: tuple(pair) for name, pair in shown.items()} == pairs, "python -m benchmarks.browser.screenshots"


def test_every_picture_exists():
    assert [name for name in PICTURES if not RECORD.with_name(f"browser-{name}.png").exists()] == []
