"""The client without `async`, for scripts and notebooks; an event loop runs on a thread of its own.

    tokens = encode(pcm, input_rate=44_100)                 # whole arrays; decode and roundtrip alike

    with blocking(connect("ws://127.0.0.1:8765", kind="encode")) as connection:
        connection.send(pcm)
        connection.end()
        for event in connection:
            ...

It works where a loop is already running, as in Jupyter. Ctrl-C and exceptions leave nothing running.
"""

import asyncio
import ssl as tls
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Self, TypeVar

import numpy as np

from neucodec_streaming.audio import as_array, check_audio
from neucodec_streaming.client.connection import Connection, connect
from neucodec_streaming.client.dial import DEFAULT_URL
from neucodec_streaming.client.events import Event
from neucodec_streaming.client.transfer import transfer
from neucodec_streaming.config import INPUT_RATE
from neucodec_streaming.errors import AudioError, ConfigError, LocalProtocolError
from neucodec_streaming.protocol.messages import Ready
from neucodec_streaming.resampler import resample
from neucodec_streaming.tokens import check_tokens

EVENTS_WAITING = 10_000
"""Limit of buffered events, about a quarter of an hour of speech; beyond it the connection is not read."""
Outcome = TypeVar("Outcome")


class LoopThread:
    """An event loop on a thread: a context manager that cancels its remaining tasks at exit."""

    def __enter__(self) -> Self:
        begun: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(begun)), name="neucodec", daemon=True)
        self._thread.start()
        self._loop = begun.result()
        return self

    async def _run(self, begun: Future[asyncio.AbstractEventLoop]) -> None:
        self._over = asyncio.Event()
        begun.set_result(asyncio.get_running_loop())
        await self._over.wait()

    def submit(self, coroutine: Coroutine[Any, Any, Outcome]) -> Future[Outcome]:
        """Starts a coroutine on the loop. Raises LocalProtocolError if the loop has ended."""
        if self._loop.is_closed():
            coroutine.close()
            raise LocalProtocolError("the session was closed at the end of its `with`: open a new one")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def call(self, coroutine: Coroutine[Any, Any, Outcome]) -> Outcome:
        """Runs a coroutine on the loop and returns its result; an interrupted wait cancels it."""
        future = self.submit(coroutine)
        try:
            return future.result()
        finally:
            future.cancel()

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()


class BlockingConnection:
    """A Connection with blocking calls, created by `blocking`.

    Events are received all the time, up to EVENTS_WAITING of them, so a short script may send first and read later.
    """

    def __init__(self, thread: LoopThread, connection: Connection) -> None:
        self._thread = thread
        self._connection = connection
        self._events: asyncio.Queue[Event | Exception] = asyncio.Queue(EVENTS_WAITING)
        self._ended: Exception | None = None

    @property
    def ready(self) -> Ready:
        """The server's description of the session."""
        return self._connection.ready

    @property
    def input_position(self) -> int:
        """Samples or tokens sent since the session began."""
        return self._connection.input_position

    def send(self, chunk: np.ndarray) -> None:
        """Connection.send."""
        self._thread.call(self._connection.send(chunk))

    def send_bytes(self, data: bytes) -> None:
        """Connection.send_bytes."""
        self._thread.call(self._connection.send_bytes(data))

    def flush(self) -> None:
        """Connection.flush."""
        self._thread.call(self._connection.flush())

    def clear(self) -> None:
        """Connection.clear; events received before it are delivered first."""
        self._thread.call(self._connection.clear())

    def prime(self, voice: Any) -> None:
        """Connection.prime."""
        self._thread.call(self._connection.prime(voice))

    def mark(self, id: str | int) -> None:
        """Connection.mark."""
        self._thread.call(self._connection.mark(id))

    def end(self) -> None:
        """Connection.end."""
        self._thread.call(self._connection.end())

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        """The next event; raises as the iteration of a Connection does."""
        if self._ended is None:
            event = self._thread.call(self._events.get())
            if not isinstance(event, Exception):
                return event
            self._ended = event
        raise StopIteration if isinstance(self._ended, StopAsyncIteration) else self._ended

    async def receive(self) -> None:
        """Queues events until the connection ends, then its reason."""
        try:
            while True:
                await self._events.put(await anext(self._connection))
        except Exception as error:
            await self._events.put(error)


@contextmanager
def blocking(session: AbstractAsyncContextManager[Connection]) -> Iterator[BlockingConnection]:
    """Opens the session of `connect(...)` as a context manager."""
    with LoopThread() as thread:
        connection = BlockingConnection(thread, thread.call(session.__aenter__()))
        receiving = thread.submit(connection.receive())
        try:
            yield connection
        finally:
            receiving.cancel()
            thread.call(session.__aexit__(None, None, None))


def encode(
    pcm: np.ndarray,
    url: str = DEFAULT_URL,
    *,
    input_rate: int = INPUT_RATE,
    profile: str | None = None,
    api_key: str | None = None,
    ssl: tls.SSLContext | None = None,
) -> np.ndarray:
    """Encodes audio to tokens, uint16, 50 a second.

    `pcm` is mono of shape (n,) at `input_rate`: float32 or float64 with full scale 1.0, int16, int32. Raises
    AudioError.
    """
    session = connect(_checked_url(url), kind="encode", profile=profile, api_key=api_key, ssl=ssl)
    return _whole(session, _mono(pcm, input_rate), np.zeros(0, np.uint16))


def decode(
    tokens: np.ndarray,
    url: str = DEFAULT_URL,
    *,
    output_rate: int | None = None,
    profile: str | None = None,
    api_key: str | None = None,
    ssl: tls.SSLContext | None = None,
) -> np.ndarray:
    """Decodes tokens (F,), an array, tensor or list, to audio, float32 (m,) at `output_rate`; None for the model's
    (`nano`: 480 samples a token, 24 kHz).

    Raises TokenError.
    """
    address = _checked_url(url)
    session = connect(address, kind="decode", output_rate=output_rate, profile=profile, api_key=api_key, ssl=ssl)
    return _whole(session, check_tokens(tokens), np.zeros(0, np.float32))


def roundtrip(
    pcm: np.ndarray,
    url: str = DEFAULT_URL,
    *,
    input_rate: int = INPUT_RATE,
    output_rate: int | None = None,
    profile: str | None = None,
    api_key: str | None = None,
    ssl: tls.SSLContext | None = None,
) -> np.ndarray:
    """Encodes and decodes audio (as `encode`) to float32 at `output_rate`; None for the model's."""
    session = connect(_checked_url(url), output_rate=output_rate, profile=profile, api_key=api_key, ssl=ssl)
    return _whole(session, _mono(pcm, input_rate), np.zeros(0, np.float32))


def _checked_url(url: Any) -> str:
    """Checks the URL. Raises ConfigError for a number, as `encode(*soundfile.read(path))` passes the rate here."""
    if isinstance(url, (int, float)):
        raise ConfigError(f"the server URL is {url!r}: for the sample rate of the audio use input_rate={url!r}")
    if not isinstance(url, str):
        raise ConfigError(f"the server URL is a {type(url).__name__}: use one like {DEFAULT_URL}, after the audio")
    return url


def _mono(pcm: Any, input_rate: int) -> np.ndarray:
    """Converts audio of any usual type to float32 (n,) at INPUT_RATE. Raises AudioError, ConfigError."""
    audio = as_array(pcm, "audio is a", AudioError)
    if audio.ndim == 2 and audio.shape[1] == 1:
        audio = audio[:, 0]
    if audio.ndim == 2:
        channels = int(np.argmin(audio.shape))
        raise AudioError(f"audio has shape {audio.shape}: give one channel, such as audio.mean(axis={channels})")
    if audio.dtype in (np.int16, np.int32):
        audio = (audio / -float(np.iinfo(audio.dtype).min)).astype(np.float32)
    elif audio.dtype == np.float64:
        audio = audio.astype(np.float32)
    return resample(check_audio(audio), input_rate, INPUT_RATE)


def _whole(session: AbstractAsyncContextManager[Connection], units: np.ndarray, nothing: np.ndarray) -> np.ndarray:
    pieces = [nothing]

    async def run() -> None:
        async with session as connection:
            await transfer(connection, [units], pieces.append)

    with LoopThread() as thread:
        thread.call(run())
    return np.concatenate(pieces)
