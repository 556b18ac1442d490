"""Hours of silence, on a clock that skips them."""

import asyncio
import selectors

from neucodec_streaming.client.connection import connect
from neucodec_streaming.client.events import Flushed, Tokens
from tests.client.fake_server import fake_server
from tests.client.test_connection import speech
from tests.client.test_resume import until

HOURS = 3
LOOK_S = 0.001
"""Real time in which data in flight over loopback arrives."""


class _Jumping(selectors.DefaultSelector):
    """Waits at most LOOK_S and counts the time that it skipped."""

    left_out_s = 0.0

    def select(self, timeout=None):
        ready = super().select(LOOK_S if timeout is None else min(timeout, LOOK_S))
        if timeout is not None and timeout > LOOK_S and not ready:
            self.left_out_s += timeout - LOOK_S
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer when it is idle."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return super().time() + self._jumping.left_out_s


def test_a_session_quiet_for_hours_continues_at_once():
    async def scene() -> tuple[int, int]:
        async with fake_server() as server, connect(server.url, kind="encode") as connection:
            waiting = asyncio.ensure_future(anext(connection))
            await asyncio.sleep(HOURS * 3600)
            await connection.send(speech(5))
            tokens = [await waiting]
            await connection.flush()
            await until(connection, Flushed)
            await asyncio.sleep(HOURS * 3600)
            await connection.send(speech(5))
            tokens += await until(connection, Tokens)
            return sum(event.tokens.size for event in tokens), len(server.requests)

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        assert runner.run(scene()) == (10, 1)
