"""What a command shows while its session runs."""

from neucodec_streaming.client.commands.display import LiveRows
from neucodec_streaming.client.connection import connect
from neucodec_streaming.client.events import Resumed
from tests.client.fake_server import Fault, fake_server
from tests.client.test_resume import until


async def test_a_lost_connection_is_shown_at_once_with_the_seconds_and_until_it_is_back():
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
