"""What a terminal gives a command: tokens of a pipe while they come, and Ctrl-C as an event."""

import asyncio
import codecs
import signal
from collections.abc import AsyncIterator, Sequence

import numpy as np

from neucodec_streaming.client.files import TokenPipe
from neucodec_streaming.client.pipes import PIPE, read_pipe
from neucodec_streaming.tags import TAGS


def interruption() -> asyncio.Event:
    """An event that the first Ctrl-C sets: stop listening and finish. The second one ends the command at once."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def once() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        stop.set()

    loop.add_signal_handler(signal.SIGINT, once)
    return stop


async def piped_tokens(path: str, form: str, tags: Sequence[str] = TAGS) -> AsyncIterator[np.ndarray]:
    """Tokens from a pipe as they come. Raises FileError, TokenError."""
    pipe = TokenPipe(form, tags)
    async for payload in read_pipe(path):
        tokens = pipe.feed(payload)
        if tokens.size:
            yield tokens
    tokens = pipe.finish()
    if tokens.size:
        yield tokens


async def piped_lines() -> AsyncIterator[str]:
    """Lines of text from standard input as they come, UTF-8, without their ends and without empty ones."""
    decoder, line = codecs.getincrementaldecoder("utf-8")("replace"), ""
    async for payload in read_pipe(PIPE):
        *lines, line = (line + decoder.decode(payload)).split("\n")
        for whole in lines:
            if whole.strip():
                yield whole.strip()
    if line.strip():
        yield line.strip()
