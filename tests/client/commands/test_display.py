"""What the command shows while a session runs."""

from dataclasses import dataclass

import numpy as np
import pytest

from neucodec_streaming.client.commands.display import LiveRows, ProgressLine, level_bar


@dataclass
class Session:
    """As far as the display looks at one."""

    lost_s: float | None = None


def test_a_lost_connection_is_shown_at_once_with_its_seconds():
    rows, session = LiveRows(), Session()
    rows.watch(session)
    rows.show({"sent": "1.0 s"})
    assert rows.rows() == {"sent": "1.0 s"}
    session.lost_s = 3.2
    assert rows.rows() == {"sent": "1.0 s", "connection": "lost, reconnecting for 3 s"}
    session.lost_s = None
    assert "connection" not in rows.rows()


def test_playing_shows_how_much_was_heard():
    line = ProgressLine(10.0)
    assert line.rows() == {}
    line.follow(lambda: 2.5)
    assert line.rows() == {"played": "2.5 of 10.0 s"}


def test_nothing_is_shown_where_nobody_looks(capsys):
    with ProgressLine(quiet=True):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("amplitude", "bar"), [(0.0, " "), (1.0, "█")])
def test_a_level_is_one_character(amplitude, bar):
    assert level_bar(np.full(320, amplitude, np.float32)) == bar
