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
    with _portaudio("listing devices") as sounddevice:
        defaults = set(sounddevice.default.device)
        return [
            {
                "index": index,
                "name": device["name"],
                "host_api": _host_api(sounddevice, device),
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
    with _portaudio("listing devices") as sounddevice:
        fitting = [found for found in sounddevice.query_devices() if found[f"max_{kind}_channels"]]
    if device is None and not fitting:
        raise SoundDeviceError(f"no {kind} device found: connect one, or start the sound server")
    if device is None or isinstance(device, int) or device.isdecimal():
        with _portaudio(f"looking for {kind} device {device}"):
            return dict(sounddevice.query_devices(None if device is None else int(device), kind))
    named = [found for found in fitting if device.lower() in found["name"].lower()]
    exact = [found for found in named if found["name"].lower() == device.lower()]
    chosen = exact or named
    if len(chosen) == 1:
        return dict(chosen[0])
    with _portaudio("listing devices"):
        parts = [f"{found['index']} {found['name']!r} ({_host_api(sounddevice, found)})" for found in chosen or fitting]
    listed = ", ".join(parts) or "none"
    how = f"is ambiguous: {listed}; give more of the name, or the number" if chosen else f"is not among: {listed}"
    raise SoundDeviceError(f"{kind} device {device!r} {how} (`neucodec devices` lists them)")


class _Device:
    """The stream of a device ("microphone", "input") or ("speaker", "output"), and the wait for its callback."""

    def __init__(self, role: str, kind: str, rate: int, device: str | int | None) -> None:
        self._role, self._kind = role, kind
        self.rate = rate
        self.latency_ms = 0.0
        self._device = device
        self._called_back = asyncio.Event()
        self._ended = False
        self._loop = asyncio.get_running_loop()

    def _find(self) -> dict[str, Any]:
        """The device's description; `device_rate` is PREFERRED_RATE if the device supports it, else its own."""
        found = find_device(self._device, self._kind)
        self.name = found["name"]
        self._channels = min(2, found[f"max_{self._kind}_channels"])
        with _portaudio(f"opening {self._role} {self.name!r}") as sounddevice:
            check = getattr(sounddevice, f"check_{self._kind}_settings")
            try:
                check(device=found["index"], channels=self._channels, dtype="float32", samplerate=PREFERRED_RATE)
                self.device_rate = PREFERRED_RATE
            except sounddevice.PortAudioError:
                self.device_rate = round(found["default_samplerate"])
        return found

    def _start(self, found: dict[str, Any], callback: Callable[..., None], latency_s: float) -> None:
        with _portaudio(f"opening {self._role} {self.name!r}") as sounddevice:
            stream = sounddevice.InputStream if self._kind == "input" else sounddevice.OutputStream
            self._stream = stream(
                samplerate=self.device_rate,
                blocksize=self.device_rate * BLOCK_MS // 1000,
                device=found["index"],
                channels=self._channels,
                dtype="float32",
                latency=latency_s,
                callback=callback,
                finished_callback=self._on_end,
            )
            self._stream.start()

    async def _callback(self, has_ended: bool, doing: str) -> None:
        """Waits for the callback. Raises SoundDeviceError if the device `has_ended` or is inactive."""
        if has_ended:
            raise SoundDeviceError(f"{self._role} {self.name!r} stopped: check that it is plugged in")
        try:
            async with asyncio.timeout(SILENT_DEVICE_S):
                await self._called_back.wait()
        except TimeoutError:
            raise SoundDeviceError(
                f"{self._role} {self.name!r} {doing} no samples for {SILENT_DEVICE_S:g} s: is it plugged in?"
            ) from None

    def _on_end(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop has closed; the stream is about to
            self._loop.call_soon_threadsafe(self._called_back.set)


class Microphone(_Device):
    """An input device as an async iterator of float32 mono packets at `rate`; use it in `with`.

    `overflow_samples` counts samples at `device_rate` lost because the iteration paused for more than
    MICROPHONE_QUEUE_SECONDS. `latency_ms` is the age of the latest block's first sample. `is_muted` turns true after
    SILENT_DEVICE_S of digital silence: the device is muted, or permission is missing. Raises SoundDeviceError if the
    device is missing or is removed.
    """

    def __init__(self, rate: int, device: str | int | None = None) -> None:
        super().__init__("microphone", "input", rate, device)
        self.overflow_samples = 0
        self._zero_samples = 0
        self._blocks: deque[np.ndarray] = deque()

    def __enter__(self) -> Self:
        self._start(self._find(), self._on_input, MICROPHONE_BUFFER_S)
        return self

    def __exit__(self, *exception: object) -> None:
        with _portaudio("closing the microphone"):
            self._stream.close()

    @property
    def is_muted(self) -> bool:
        """Whether only zeros have arrived for SILENT_DEVICE_S."""
        return self._zero_samples >= SILENT_DEVICE_S * self.device_rate

    async def __aiter__(self) -> AsyncIterator[np.ndarray]:
        resampler = Resampler(self.device_rate, self.rate)
        while True:
            self._called_back.clear()
            ended = self._ended
            while self._blocks:
                packet = resampler.feed(downmix(self._blocks.popleft()))
                if packet.size:
                    yield packet
            await self._callback(ended, "delivered")

    def _on_input(self, block: np.ndarray, frames: int, time: Any, status: Any) -> None:
        if len(self._blocks) >= MICROPHONE_QUEUE_SECONDS * 1000 / BLOCK_MS:
            self.overflow_samples += frames
        else:
            self._blocks.append(block.copy())
        if status.input_overflow:
            self.overflow_samples += frames
        self._zero_samples = 0 if block.any() else self._zero_samples + frames
        self.latency_ms = max(0.0, time.currentTime - time.inputBufferAdcTime) * 1000  # ALSA stamps some in the future
        self._wake()


class Speaker(_Device):
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
        super().__init__("speaker", "output", rate, device)
        self.underflows = 0
        self.pushed_samples = 0
        self._jitter = JitterBuffer(rate, round(chunk_ms * rate / 1000), live)
        self._orders: deque[np.ndarray | str] = deque()
        self._converted = np.zeros(0, np.float32)
        self._heard = deque([(0.0, 0)], maxlen=BLOCKS_IN_FLIGHT)
        self._heard_at_close: int | None = None

    def __enter__(self) -> Self:
        found = self._find()
        self._resampler = Resampler(self.rate, self.device_rate)
        self._start(found, self._on_output, max(SPEAKER_BUFFER_S, found["default_low_output_latency"]))
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        with _portaudio("closing the speaker") as sounddevice:
            if kind is None:
                self._stream.stop()  # plays what the device has taken; close alone would cut it off
            heard = self.position
            with suppress(sounddevice.PortAudioError):  # the device may be gone
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
            self._called_back.clear()
            await self._callback(self._ended, "accepted")

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
        self._wake()


def _host_api(sounddevice: Any, device: dict[str, Any]) -> str:
    """The same device may be listed once for each host API."""
    return str(sounddevice.query_hostapis(device["hostapi"])["name"])


@contextmanager
def _portaudio(doing: str) -> Iterator[Any]:
    """The module sounddevice, with its errors translated."""
    try:
        import sounddevice
    except OSError:
        raise SoundDeviceError(
            "the PortAudio library is not installed: apt-get install libportaudio2 (Debian), or brew install portaudio"
        ) from None
    try:
        yield sounddevice
    except (sounddevice.PortAudioError, ValueError) as error:
        raise SoundDeviceError(f"{doing} failed: {error}; `neucodec devices` lists the devices") from None
