"""What a terminal gives a command: standard input as tokens while they come, and Ctrl-C as an event."""

import asyncio
import codecs
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import numpy as np

from neucodec_streaming.client.files import TokenPipe

_PIPE_BYTES = 4096


def interruption() -> asyncio.Event:
    """An event that the first Ctrl-C sets: stop listening and finish. The second one ends the command at once."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def once() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        stop.set()

    loop.add_signal_handler(signal.SIGINT, once)
    return stop


async def piped_tokens(form: str) -> AsyncIterator[np.ndarray]:
    """Tokens from standard input as they come, whatever it is: a pipe, a terminal or a file."""
    pipe = TokenPipe(form)
    read = await _standard_input()
    while payload := await read(_PIPE_BYTES):
        tokens = pipe.feed(payload)
        if tokens.size:
            yield tokens
    pipe.finish()


async def piped_lines() -> AsyncIterator[str]:
    """Lines of text from standard input as they come, UTF-8, without their ends and without empty ones."""
    decoder, line = codecs.getincrementaldecoder("utf-8")("replace"), ""
    read = await _standard_input()
    while payload := await read(_PIPE_BYTES):
        *lines, line = (line + decoder.decode(payload)).split("\n")
        for whole in lines:
            if whole.strip():
                yield whole.strip()
    if line.strip():
        yield line.strip()


async def _standard_input() -> Callable[[int], Coroutine[Any, Any, bytes]]:
    if stat.S_ISREG(os.fstat(sys.stdin.fileno()).st_mode):

        async def read_file(count: int) -> bytes:
            return sys.stdin.buffer.read(count)

        return read_file
    stream = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), sys.stdin)
    return stream.read
