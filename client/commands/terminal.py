"""A command's terminal: tokens of a pipe as they arrive, and Ctrl-C as an event."""

import asyncio
import codecs
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from neucodec_streaming.client.files import TokenPipe
from neucodec_streaming.client.pipes import PIPE, read_pipe
from neucodec_streaming.tags import TAGS


async def interruptible(running: Coroutine[Any, Any, None]) -> None:
    """Runs a command; Ctrl-C and SIGTERM cancel it, so that it cleans up and no library is interrupted in between.

    Raises CancelledError then, and the command's own errors.
    """
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        _on_signal(number, task.cancel)
    await running


def interruption() -> asyncio.Event:
    """An event that the first Ctrl-C sets: stop listening and finish. The second one ends the command at once."""
    task, stop = asyncio.current_task(), asyncio.Event()
    assert task is not None

    def once() -> None:
        _on_signal(signal.SIGINT, task.cancel)
        stop.set()

    _on_signal(signal.SIGINT, once)
    return stop


def _on_signal(number: int, call: Callable[[], object]) -> None:
    with suppress(ValueError, RuntimeError, NotImplementedError):  # only the main thread, on POSIX, receives signals
        asyncio.get_running_loop().add_signal_handler(number, call)


async def piped_tokens(path: str, form: str, tags: Sequence[str] = TAGS) -> AsyncIterator[np.ndarray]:
    """Tokens from a pipe as they arrive. Raises FileError, TokenError."""
    pipe = TokenPipe(form, tags)
    async for payload in read_pipe(path):
        tokens = pipe.feed(payload)
        if tokens.size:
            yield tokens
    tokens = pipe.finish()
    if tokens.size:
        yield tokens


async def piped_lines() -> AsyncIterator[str]:
    """Lines of text from standard input as they arrive, UTF-8, stripped, without empty ones."""
    decoder, line = codecs.getincrementaldecoder("utf-8")("replace"), ""
    async for payload in read_pipe(PIPE):
        *lines, line = (line + decoder.decode(payload)).split("\n")
        for whole in lines:
            if whole.strip():
                yield whole.strip()
    if line.strip():
        yield line.strip()
