"""Microphone and speaker through sounddevice (PortAudio), which loads when a device is opened.

PortAudio calls back on its own thread, which must never wait. The microphone's callback copies into a bounded queue and
counts what does not fit. The speaker's callback owns the jitter buffer and takes what the event loop queued for it.
Devices run at 48 kHz if they support it, else at their own rate, with conversion here. The jitter buffer works at the
stream's rate, so its positions count the stream's samples.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self

import numpy as np

from neucodec_streaming.audio import downmix
from neucodec_streaming.client.errors import SoundDeviceError
from neucodec_streaming.client.jitter import JitterBuffer, Splice
from neucodec_streaming.resampler import Resampler

MICROPHONE_QUEUE_SECONDS = 5.0
PREFERRED_RATE = 48_000
"""A multiple of the usual stream rates. PortAudio only guesses a device's own rate behind a sound server (44.1 kHz for
ALSA).
"""
BLOCK_MS = 10
MICROPHONE_BUFFER_S = 0.04
"""Adds no latency: a block is passed on when it is complete."""
SPEAKER_BUFFER_S = 0.03
"""Buffer ahead of each block; with PortAudio's "low" (two blocks), PulseAudio underruns now and then."""
BLOCKS_IN_FLIGHT = 200
SILENT_DEVICE_S = 3.0
"""A device that is inactive for this long is gone; a microphone with only zeros for this long is muted."""


def list_devices() -> list[dict[str, Any]]:
    """All devices: {index, name, host_api, inputs, outputs, rate, default}."""
    sounddevice = _sounddevice()
    with _translated("listing devices"):
        defaults = set(sounddevice.default.device)
        return [
            {
                "index": index,
                "name": device["name"],
                "host_api": _host_api(device),
                "inputs": device["max_input_channels"],
                "outputs": device["max_output_channels"],
                "rate": round(device["default_samplerate"]),
                "default": index in defaults,
            }
            for index, device in enumerate(sounddevice.query_devices())
        ]


def find_device(device: str | int | None, kind: str) -> dict[str, Any]:
    """sounddevice's description of a device; `kind`: "input" or "output". Raises SoundDeviceError.

    `device`: number, name or part of a name in any case; None for the system's default.
    """
    sounddevice = _sounddevice()
    with _translated("listing devices"):
        if device is None and not any(found[f"max_{kind}_channels"] for found in sounddevice.query_devices()):
            raise SoundDeviceError(f"no {kind} device found: connect one, or start the sound server")
    if device is None or isinstance(device, int) or device.isdecimal():
        with _translated(f"looking for {kind} device {device}"):
            found = sounddevice.query_devices(None if device is None else int(device), kind)
            return dict(found)
    with _translated("listing devices"):
        fitting = [found for found in sounddevice.query_devices() if found[f"max_{kind}_channels"]]
    named = [found for found in fitting if device.lower() in found["name"].lower()]
    exact = [found for found in named if found["name"].lower() == device.lower()]
    chosen = exact or named
    if len(chosen) == 1:
        return dict(chosen[0])
    with _translated("listing devices"):
        parts = [f"{found['index']} {found['name']!r} ({_host_api(found)})" for found in chosen or fitting]
    listed = ", ".join(parts) or "none"
    how = f"is ambiguous: {listed}; give more of the name, or the number" if chosen else f"is not among: {listed}"
    raise SoundDeviceError(f"{kind} device {device!r} {how} (`neucodec devices` lists them)")


class Microphone:
    """An input device as an async iterator of float32 mono packets at `rate`; use it in `with`.

    `overflow_samples` counts samples at `device_rate` lost because the iteration paused for more than
    MICROPHONE_QUEUE_SECONDS. `latency_ms` is the age of the latest block's first sample. `is_muted` turns true after
    SILENT_DEVICE_S of digital silence: the device is muted, or permission is missing. Raises SoundDeviceError if the
    device is missing or is removed.
    """

    def __init__(self, rate: int, device: str | int | None = None) -> None:
        self.rate = rate
        self.overflow_samples = 0
        self.latency_ms = 0.0
        self._device = device
        self._zero_samples = 0
        self._blocks: deque[np.ndarray] = deque()
        self._arrived = asyncio.Event()
        self._ended = False
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> Self:
        found = find_device(self._device, "input")
        self.name = found["name"]
        sounddevice = _sounddevice()
        with _translated(f"opening microphone {self.name!r}"):
            channels = min(2, found["max_input_channels"])
            self.device_rate = _rate(found, sounddevice.check_input_settings, channels)
            block = self.device_rate * BLOCK_MS // 1000
            self._most_blocks = max(1, round(MICROPHONE_QUEUE_SECONDS * self.device_rate / block))
            self._stream = sounddevice.InputStream(
                samplerate=self.device_rate,
                blocksize=block,
                device=found["index"],
                channels=channels,
                dtype="float32",
                latency=MICROPHONE_BUFFER_S,
                callback=self._on_input,
                finished_callback=self._on_end,
            )
            self._stream.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _translated("closing the microphone"):
            self._stream.close()

    @property
    def is_muted(self) -> bool:
        """Whether only zeros have arrived for SILENT_DEVICE_S."""
        return self._zero_samples >= SILENT_DEVICE_S * self.device_rate

    async def __aiter__(self) -> AsyncIterator[np.ndarray]:
        resampler = Resampler(self.device_rate, self.rate)
        while True:
            self._arrived.clear()
            ended = self._ended
            while self._blocks:
                packet = resampler.feed(downmix(self._blocks.popleft()))
                if packet.size:
                    yield packet
            if ended:
                raise SoundDeviceError(f"microphone {self.name!r} stopped: check that it is plugged in")
            try:
                async with asyncio.timeout(SILENT_DEVICE_S):
                    await self._arrived.wait()
            except TimeoutError:
                raise SoundDeviceError(
                    f"microphone {self.name!r} delivered no samples for {SILENT_DEVICE_S:g} s: is it plugged in?"
                ) from None

    def _on_input(self, block: np.ndarray, frames: int, time: Any, status: Any) -> None:
        if len(self._blocks) >= self._most_blocks:
            self.overflow_samples += frames
        else:
            self._blocks.append(block.copy())
        if status.input_overflow:
            self.overflow_samples += frames
        self._zero_samples = 0 if block.any() else self._zero_samples + frames
        self.latency_ms = max(0.0, time.currentTime - time.inputBufferAdcTime) * 1000  # ALSA stamps some in the future
        _wake(self._loop, self._arrived)

    def _on_end(self) -> None:
        self._ended = True
        _wake(self._loop, self._arrived)


class Speaker:
    """An output device that plays samples pushed at `rate` through a jitter buffer; use it in `with`.

    push(samples), finish() and clear() never wait; `reached(seconds)` waits until that much was played, `drained()`
    until everything was heard. Pushed samples are kept until they are played, so pace long pushes by `reached`.
    `chunk_ms` is the sender's packet size, `live` as in JitterBuffer. Positions count the `pushed_samples`.
    `latency_ms` is the time from the jitter buffer to the ear, `underflows` counts gaps because this process was late.
    Raises SoundDeviceError if the device is missing or is removed.
    """

    def __init__(
        self, rate: int, device: str | int | None = None, *, chunk_ms: float = 100.0, live: bool = False
    ) -> None:
        self.rate = rate
        self._device = device
        self._jitter = JitterBuffer(rate, round(chunk_ms * rate / 1000), live)
        self.latency_ms = 0.0
        self.underflows = 0
        self._orders: deque[np.ndarray | str] = deque()
        self.pushed_samples = 0
        self._heard_at_close: int | None = None
        self._progress = asyncio.Event()
        self._ended = False
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> Self:
        found = find_device(self._device, "output")
        self.name = found["name"]
        sounddevice = _sounddevice()
        with _translated(f"opening speaker {self.name!r}"):
            channels = min(2, found["max_output_channels"])
            self.device_rate = _rate(found, sounddevice.check_output_settings, channels)
            self._resampler = Resampler(self.rate, self.device_rate)
            self._converted = np.zeros(0, np.float32)
            self._heard = deque([(0.0, 0)], maxlen=BLOCKS_IN_FLIGHT)
            self._stream = sounddevice.OutputStream(
                samplerate=self.device_rate,
                blocksize=self.device_rate * BLOCK_MS // 1000,
                device=found["index"],
                channels=channels,
                dtype="float32",
                latency=max(SPEAKER_BUFFER_S, found["default_low_output_latency"]),
                callback=self._on_output,
                finished_callback=self._on_end,
            )
            self._stream.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _translated("closing the speaker"):
            if kind is None:
                self._stream.stop()  # plays what the device has taken; close alone would cut it off
            heard = self.position
            with suppress(_sounddevice().PortAudioError):  # the device may be gone
                heard = self.heard_position
            self._heard_at_close = heard
            self._stream.close()

    @property
    def underruns(self) -> int:
        """Number of underruns because audio was late."""
        return self._jitter.underruns

    @property
    def skipped_seconds(self) -> float:
        """Seconds skipped to catch up with a live source."""
        return self._jitter.skipped_samples / self.rate

    @property
    def skips(self) -> int:
        """Number of skips to the present of a live source."""
        return self._jitter.skips

    @property
    def splices(self) -> tuple[Splice, ...]:
        """The latest splices."""
        return tuple(self._jitter.splices)

    @property
    def position(self) -> int:
        """Position after the last sample that went to the device."""
        return self._jitter.position

    @property
    def heard_position(self) -> int:
        """Position of the sample that is audible now: `position` minus the delay of device and conversion."""
        if self._heard_at_close is not None:
            return self._heard_at_close
        heard = tuple(self._heard)
        moments, positions = [moment for moment, _ in heard], [position for _, position in heard]
        return int(np.interp(self._stream.time, moments, positions))

    @property
    def queued_seconds(self) -> float:
        """Seconds waiting to be played."""
        gone = self._jitter.played_samples + self._jitter.skipped_samples + self._jitter.dropped_samples
        return (self.pushed_samples - gone) / self.rate

    def push(self, samples: np.ndarray) -> None:
        """Queues float32 (m,) at `rate`."""
        self.pushed_samples += samples.size
        self._orders.append(samples)

    def finish(self) -> None:
        """Ends the utterance: plays all of it without waiting for more."""
        self._orders.append("finish")

    def clear(self) -> None:
        """Drops queued audio; silent once the device has played its own buffer."""
        self._orders.append("clear")

    async def reached(self, seconds: float) -> None:
        """Waits until `seconds` of the stream have been played."""
        await self._until(lambda: self.position >= seconds * self.rate)

    async def drained(self) -> None:
        """Waits until everything queued has been heard."""
        await self._until(lambda: self.queued_seconds <= 0 and self.heard_position >= self.position)

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self._progress.clear()
            if self._ended:
                raise SoundDeviceError(f"speaker {self.name!r} stopped: check that it is plugged in")
            try:
                async with asyncio.timeout(SILENT_DEVICE_S):
                    await self._progress.wait()
            except TimeoutError:
                raise SoundDeviceError(
                    f"speaker {self.name!r} accepted no samples for {SILENT_DEVICE_S:g} s: is it plugged in?"
                ) from None

    def _on_output(self, block: np.ndarray, frames: int, time: Any, status: Any) -> None:
        while self._orders:
            order = self._orders.popleft()
            if isinstance(order, np.ndarray):
                self._jitter.push(order)
            elif order == "clear":
                self._jitter.clear()
            else:
                self._jitter.finish()
        while self._converted.size < frames:
            samples = self._resampler.feed(self._jitter.pull(self.rate * BLOCK_MS // 1000))
            self._converted = np.concatenate([self._converted, samples])
        block[:] = self._converted[:frames, None]
        inside_s = (self._converted.size - frames) / self.device_rate + self._resampler.delay_ms / 1000
        end_s = time.outputBufferDacTime + frames / self.device_rate + inside_s  # of the latest audio
        self.latency_ms = (time.outputBufferDacTime - time.currentTime + inside_s) * 1000
        self._heard.append((end_s, self._jitter.position))
        self._converted = self._converted[frames:]
        self.underflows += bool(status.output_underflow)
        _wake(self._loop, self._progress)

    def _on_end(self) -> None:
        self._ended = True
        _wake(self._loop, self._progress)


def _rate(found: dict[str, Any], check: Callable[..., None], channels: int) -> int:
    """PREFERRED_RATE if the device supports it, else the device's own."""
    import sounddevice

    try:
        check(device=found["index"], channels=channels, dtype="float32", samplerate=PREFERRED_RATE)
    except sounddevice.PortAudioError:
        return round(found["default_samplerate"])
    return PREFERRED_RATE


def _host_api(device: dict[str, Any]) -> str:
    """The same device may be listed once for each host API."""
    return str(_sounddevice().query_hostapis(device["hostapi"])["name"])


def _wake(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    with suppress(RuntimeError):  # the loop has closed; the stream is about to
        loop.call_soon_threadsafe(event.set)


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
        raise SoundDeviceError(f"{doing} failed: {error}; `neucodec devices` lists the devices") from None
