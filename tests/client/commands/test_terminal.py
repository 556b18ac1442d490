"""The first Ctrl-C finishes the session, the second one aborts it."""

import asyncio
import os
import signal

import pytest

from neucodec_streaming.client.commands.terminal import interruptible, interruption


async def test_the_first_ctrl_c_sets_the_event_and_the_second_one_cancels_the_command():
    finished = asyncio.Event()

    async def command() -> None:
        stop = interruption()
        os.kill(os.getpid(), signal.SIGINT)
        await stop.wait()
        finished.set()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(command())
    assert finished.is_set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_cancels_a_command_which_then_cleans_up(number):
    tidied = []

    async def command() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
        finally:
            tidied.append(number)

    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(interruptible(command()))
    assert tidied == [number]
