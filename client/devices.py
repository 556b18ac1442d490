"""Microphone and speaker through sounddevice (PortAudio), which is loaded when one is opened and not before.

PortAudio calls back on a thread of its own, which must never wait: the microphone's callback copies into a bounded
queue and counts what does not fit; the speaker's callback is the one owner of the jitter buffer and takes what the
event loop left for it. Rates: the device's own, converted to the stream's by soxr on the event loop's side.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self

import numpy as np

from client.errors import SoundDeviceError
from client.jitter import JitterBuffer
from streaming.audio import Resampler, downmix

MICROPHONE_QUEUE_SECONDS = 5.0
BLOCK_MS = 20
SILENT_DEVICE_S = 3.0
"""A microphone that gives nothing for so long has gone away."""


def list_devices() -> list[dict[str, Any]]:
    """All devices: {index, name, inputs, outputs, rate, default}."""
    sounddevice = _sounddevice()
    with _translated("listing devices"):
        defaults = set(sounddevice.default.device)
        return [
            {
                "index": index,
                "name": device["name"],
                "inputs": device["max_input_channels"],
                "outputs": device["max_output_channels"],
                "rate": round(device["default_samplerate"]),
                "default": index in defaults,
            }
            for index, device in enumerate(sounddevice.query_devices())
        ]


class Microphone:
    """An input device as an async iterator of float32 mono packets at `rate`; use it in `with`.

    `overflow_samples` counts what was lost because nobody iterated for MICROPHONE_QUEUE_SECONDS. Raises
    SoundDeviceError when the device is not there or goes away.
    """

    def __init__(self, rate: int, device: str | int | None = None) -> None:
        self.rate = rate
        self.overflow_samples = 0
        self._device = _device_key(device)
        self._blocks: deque[np.ndarray] = deque()
        self._arrived = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> Self:
        sounddevice = _sounddevice()
        with _translated(f"opening microphone {self._device!r}"):
            found = sounddevice.query_devices(self._device, "input")
            self._device_rate = round(found["default_samplerate"])
            self.name = found["name"]
            channels = min(2, found["max_input_channels"])
            block = self._device_rate * BLOCK_MS // 1000
            self._most_blocks = max(1, round(MICROPHONE_QUEUE_SECONDS * self._device_rate / block))
            self._stream = sounddevice.InputStream(
                samplerate=self._device_rate,
                blocksize=block,
                device=self._device,
                channels=channels,
                dtype="float32",
                latency="low",
                callback=self._on_input,
            )
            self._stream.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _translated("closing the microphone"):
            self._stream.close()

    async def __aiter__(self) -> AsyncIterator[np.ndarray]:
        resampler = Resampler(self._device_rate, self.rate)
        while True:
            self._arrived.clear()
            while self._blocks:
                packet = resampler.feed(downmix(self._blocks.popleft()))
                if packet.size:
                    yield packet
            try:
                async with asyncio.timeout(SILENT_DEVICE_S):
                    await self._arrived.wait()
            except TimeoutError:
                raise SoundDeviceError(
                    f"microphone {self.name!r} gave nothing for {SILENT_DEVICE_S:g} s: was it unplugged?"
                ) from None

    def _on_input(self, block: np.ndarray, frames: int, time: Any, status: Any) -> None:
        if len(self._blocks) >= self._most_blocks:
            self.overflow_samples += frames
        else:
            self._blocks.append(block.copy())
        if status.input_overflow:
            self.overflow_samples += frames
        _wake(self._loop, self._arrived)


class Speaker:
    """An output device that plays what is pushed at `rate`, through a jitter buffer; use it in `with`.

    push(samples), finish(), clear() never wait; `reached(seconds)` waits until so much has been played, `drained()`
    until all has. What is pushed is kept until it is played, so whoever pushes paces himself by `reached`.
    """

    def __init__(self, rate: int, device: str | int | None = None, prefill_ms: float = 160.0) -> None:
        self.rate = rate
        self._device = _device_key(device)
        self._prefill_ms = prefill_ms
        self._orders: deque[np.ndarray | str] = deque()
        self._pushed = 0
        self._progress = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> Self:
        sounddevice = _sounddevice()
        with _translated(f"opening speaker {self._device!r}"):
            found = sounddevice.query_devices(self._device, "output")
            self._device_rate = round(found["default_samplerate"])
            self.name = found["name"]
            self._resampler = Resampler(self.rate, self._device_rate)
            self._jitter = JitterBuffer(
                round(self._prefill_ms * self._device_rate / 1000), fade_samples=self._device_rate * 5 // 1000
            )
            self._stream = sounddevice.OutputStream(
                samplerate=self._device_rate,
                blocksize=self._device_rate * BLOCK_MS // 1000,
                device=self._device,
                channels=1,
                dtype="float32",
                latency="low",
                callback=self._on_output,
            )
            self._stream.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _translated("closing the speaker"):
            if kind is None:
                self._stream.stop()  # lets the device play what it has taken, where close alone would cut it off
            self._stream.close()

    @property
    def underruns(self) -> int:
        """How often playback broke because audio came too late."""
        return self._jitter.underruns

    @property
    def played_seconds(self) -> float:
        """Seconds of the stream that went to the device."""
        return self._jitter.played_samples / self._device_rate

    @property
    def queued_seconds(self) -> float:
        """Seconds that wait to be played."""
        gone = self._jitter.played_samples + self._jitter.dropped_samples
        return (self._pushed - gone) / self._device_rate

    def push(self, samples: np.ndarray) -> None:
        """Queues float32 (m,) at `rate`."""
        self._queue(self._resampler.feed(samples))

    def finish(self) -> None:
        """No more is coming for now: play all of it, without waiting for more."""
        self._queue(self._resampler.flush())
        self._orders.append("finish")

    def clear(self) -> None:
        """Silence within one block; what was queued is dropped."""
        self._resampler.clear()
        self._orders.append("clear")

    async def reached(self, seconds: float) -> None:
        """Waits until `seconds` of the stream have been played."""
        await self._until(lambda: self.played_seconds >= seconds)

    async def drained(self) -> None:
        """Waits until everything queued has been played."""
        await self._until(lambda: self.queued_seconds <= 0)

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self._progress.clear()
            try:
                async with asyncio.timeout(SILENT_DEVICE_S):
                    await self._progress.wait()
            except TimeoutError:
                raise SoundDeviceError(
                    f"speaker {self.name!r} took nothing for {SILENT_DEVICE_S:g} s: was it unplugged?"
                ) from None

    def _queue(self, samples: np.ndarray) -> None:
        self._pushed += samples.size
        self._orders.append(samples)

    def _on_output(self, block: np.ndarray, frames: int, time: Any, status: Any) -> None:
        while self._orders:
            order = self._orders.popleft()
            if isinstance(order, np.ndarray):
                self._jitter.push(order)
            elif order == "clear":
                self._jitter.clear()
            else:
                self._jitter.finish()
        block[:, 0] = self._jitter.pull(frames)
        _wake(self._loop, self._progress)


def _wake(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    with suppress(RuntimeError):  # the loop has closed; the stream is about to
        loop.call_soon_threadsafe(event.set)


def _device_key(device: str | int | None) -> str | int | None:
    return int(device) if isinstance(device, str) and device.isdecimal() else device


def _sounddevice() -> Any:
    try:
        import sounddevice
    except OSError:
        raise SoundDeviceError(
            "the PortAudio library is not installed: apt-get install libportaudio2 (Debian), or brew install portaudio"
        ) from None
    return sounddevice


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    import sounddevice

    try:
        yield
    except (sounddevice.PortAudioError, ValueError) as error:
        raise SoundDeviceError(f"{doing} failed: {error}; `neucodec devices` lists what there is") from None
