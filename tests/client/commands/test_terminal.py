"""Ctrl-C once: finish; twice: leave."""

import asyncio
import os
import signal

import pytest

from neucodec_streaming.client.commands.terminal import interruption


async def test_the_first_ctrl_c_sets_the_event_and_the_second_one_interrupts():
    stop = interruption()
    os.kill(os.getpid(), signal.SIGINT)
    async with asyncio.timeout(5):
        await stop.wait()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
