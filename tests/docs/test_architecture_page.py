"""docs/architecture.md draws the states that there are, and names files that exist."""

import re

from neucodec_streaming.protocol.states import EVENT_NAMES, TRANSITIONS, ConnectionLost
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()


def test_the_picture_of_a_session_has_every_transition_of_the_table():
    drawn = set(re.findall(r"^    (\w+) --> (\w+): ([\w ]+)$", PAGE, re.MULTILINE))
    table = {
        (state.name.lower(), after.name.lower(), "connection lost" if event is ConnectionLost else EVENT_NAMES[event])
        for state, row in TRANSITIONS.items()
        for event, after in row.items()
        if state is not after
    }
    assert drawn == table


def test_every_file_named_on_the_page_exists():
    named = {name for name in re.findall(r"`([\w/.]+)`", PAGE) if "/" in name}
    assert named and not [name for name in named if not (ROOT / name).exists()]
