"""What a command shows while its session runs."""

import numpy as np
import pytest

from neucodec_streaming.client.commands.display import LiveRows, ProgressLine, level_bar
from neucodec_streaming.client.connection import connect
from neucodec_streaming.client.events import Resumed
from tests.client.fake_server import Fault, fake_server
from tests.client.test_resume import until


async def test_a_lost_connection_is_shown_with_its_duration_until_it_is_restored():
    async with fake_server(resume=True) as server, connect(server.url, kind="encode") as connection:
        rows = LiveRows(quiet=True)
        rows.watch(connection)
        rows.show({"sent": "1 s"})
        assert rows.rows() == {"sent": "1 s"}
        server.fault = Fault.PROXY
        server.drop()
        await server.asked(2)
        assert rows.rows() == {"sent": "1 s", "connection": "lost, reconnecting for 0 s"}
        server.fault = Fault.NONE
        await until(connection, Resumed)
        assert rows.rows() == {"sent": "1 s"}


def test_the_display_shows_the_played_duration():
    line = ProgressLine(10.0)
    assert line.rows() == {}
    line.follow(lambda: 2.5)
    assert line.rows() == {"played": "2.5 of 10.0 s"}


def test_nothing_is_shown_without_a_terminal(capsys):
    with ProgressLine(quiet=True):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("amplitude", "bar"), [(0.0, " "), (1.0, "█")])
def test_a_level_is_one_character(amplitude, bar):
    assert level_bar(np.full(320, amplitude, np.float32)) == bar
