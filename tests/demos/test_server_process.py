"""Starting a server process: it becomes ready, stops, and never outlives its owner."""

import asyncio
import signal
import urllib.request

import pytest

from demos.server_process import ServerProcess
from tests.server.hosting import GOLDEN

SMALL = ("--model", GOLDEN, "--batch-sizes", "1", "--profiles", "default", "--threads", "1")


def is_alive(server: ServerProcess) -> bool:
    with urllib.request.urlopen(server.url.replace("ws", "http", 1) + "/healthz", timeout=20) as response:
        return response.status == 200


@pytest.mark.slow
async def test_a_server_starts_stops_and_starts_again() -> None:
    with ServerProcess(*SMALL) as server:
        assert is_alive(server)
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL and not server.is_running
    async with server:
        assert await asyncio.to_thread(is_alive, server)
        assert server.stop() == 0
    assert not server.is_running


async def test_a_start_that_is_cancelled_leaves_no_process() -> None:
    server = ServerProcess(*SMALL)
    starting = asyncio.create_task(server.__aenter__())
    await asyncio.sleep(0)  # up to its first wait
    assert server.is_running
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not server.is_running


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_server_that_cannot_start_ends_the_command_with_its_status(is_async, tmp_path) -> None:
    with (tmp_path / "log").open("wb") as log:
        server = ServerProcess("--max-sessions", "0", log=log)
        with pytest.raises(SystemExit, match="status 2 before it was ready"):
            if is_async:
                await server.__aenter__()
            else:
                server.__enter__()
    assert "max_sessions" in (tmp_path / "log").read_text()
