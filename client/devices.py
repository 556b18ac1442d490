"""Microphone and speaker through sounddevice (PortAudio), which is loaded when one is opened and not before.

PortAudio calls back on a thread of its own, which must never wait: the microphone's callback copies into a bounded
queue and counts what does not fit; the speaker's callback is the one owner of the jitter buffer and takes what the
event loop left for it. Rates: 48 kHz where the device takes it, else the device's own, converted here. The jitter
buffer is on the stream's side of that, so that it counts in the stream's samples.
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
"""A whole multiple of a stream's rates. What PortAudio calls a device's own rate is a guess where a sound server is
behind it: 44.1 kHz for ALSA's, whatever that runs at."""
BLOCK_MS = 10
MICROPHONE_BUFFER_S = 0.04
"""Adds no latency: a block is handed on when it is complete."""
SPEAKER_BUFFER_S = 0.03
"""Each block waits behind so much; with the two blocks of PortAudio's "low", PulseAudio runs dry now and then."""
BLOCKS_IN_FLIGHT = 200
SILENT_DEVICE_S = 3.0
"""A device that gives or takes nothing for this long has gone away; a microphone whose samples are all zero for this
long is muted."""


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
    """What sounddevice says of the one that is meant; `kind`: "input" or "output". Raises SoundDeviceError.

    `device`: its number, its name or a part of it in any case, None for the system's default.
    """
    sounddevice = _sounddevice()
    with _translated("listing devices"):
        if device is None and not any(found[f"max_{kind}_channels"] for found in sounddevice.query_devices()):
            raise SoundDeviceError(f"this machine has no {kind} device, or the sound server does not run")
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

    `overflow_samples` counts what was lost because nobody iterated for MICROPHONE_QUEUE_SECONDS, at `device_rate`;
    `latency_ms` is how old the first sample of the last block was; `is_muted` after SILENT_DEVICE_S of digital silence:
    muted, or without the permission to listen. Raises SoundDeviceError when the device is not
    there or goes away.
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
        """Whether nothing but zeros has come for SILENT_DEVICE_S."""
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
                raise SoundDeviceError(f"microphone {self.name!r} stopped: was it unplugged?")
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
        self._zero_samples = 0 if block.any() else self._zero_samples + frames
        self.latency_ms = (time.currentTime - time.inputBufferAdcTime) * 1000
        _wake(self._loop, self._arrived)

    def _on_end(self) -> None:
        self._ended = True
        _wake(self._loop, self._arrived)


class Speaker:
    """An output device that plays what is pushed at `rate`, through a jitter buffer; use it in `with`.

    push(samples), finish(), clear() never wait; `reached(seconds)` waits until so much has been played, `drained()`
    until all has been heard. What is pushed is kept until it is played, so whoever pushes paces himself by `reached`.
    `chunk_ms` is how much the sender sends at a time, `live` as in JitterBuffer. Positions are those among the
    `pushed_samples`; `latency_ms` is from a sample's leaving the jitter buffer to its being heard, `underflows` how
    often the device ran dry because this process was too late. Raises SoundDeviceError when the device is not there or
    goes away.
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
                self._stream.stop()  # lets the device play what it has taken, where close alone would cut it off
            self._stream.close()

    @property
    def underruns(self) -> int:
        """How often playback broke because audio came too late."""
        return self._jitter.underruns

    @property
    def skipped_seconds(self) -> float:
        """What was left out to catch up, where the source is live."""
        return self._jitter.skipped_samples / self.rate

    @property
    def skips(self) -> int:
        """How often playback skipped to the present, because it was too far behind a live source."""
        return self._jitter.skips

    @property
    def splices(self) -> tuple[Splice, ...]:
        """Where something was left out, the latest ones."""
        return tuple(self._jitter.splices)

    @property
    def position(self) -> int:
        """Position of the sample after the last that went to the device."""
        return self._jitter.position

    @property
    def heard_position(self) -> int:
        """Position of the sample that is heard now: `position` of as long ago as the device and conversion take."""
        heard = tuple(self._heard)
        moments, positions = [moment for moment, _ in heard], [position for _, position in heard]
        return int(np.interp(self._stream.time, moments, positions))

    @property
    def queued_seconds(self) -> float:
        """Seconds that wait to be played."""
        gone = self._jitter.played_samples + self._jitter.skipped_samples + self._jitter.dropped_samples
        return (self.pushed_samples - gone) / self.rate

    def push(self, samples: np.ndarray) -> None:
        """Queues float32 (m,) at `rate`."""
        self.pushed_samples += samples.size
        self._orders.append(samples)

    def finish(self) -> None:
        """The utterance is complete: play all of it, without waiting for more."""
        self._orders.append("finish")

    def clear(self) -> None:
        """Silence as soon as the device has played what it has taken; what was queued is dropped."""
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
                raise SoundDeviceError(f"speaker {self.name!r} stopped: was it unplugged?")
            try:
                async with asyncio.timeout(SILENT_DEVICE_S):
                    await self._progress.wait()
            except TimeoutError:
                raise SoundDeviceError(
                    f"speaker {self.name!r} took nothing for {SILENT_DEVICE_S:g} s: was it unplugged?"
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
        end_s = time.outputBufferDacTime + frames / self.device_rate + inside_s  # of what has left the jitter buffer
        self.latency_ms = (time.outputBufferDacTime - time.currentTime + inside_s) * 1000
        self._heard.append((end_s, self._jitter.position))
        self._converted = self._converted[frames:]
        self.underflows += bool(status.output_underflow)
        _wake(self._loop, self._progress)

    def _on_end(self) -> None:
        self._ended = True
        _wake(self._loop, self._progress)


def _rate(found: dict[str, Any], check: Callable[..., None], channels: int) -> int:
    """PREFERRED_RATE where the device takes it, else the device's own."""
    import sounddevice

    try:
        check(device=found["index"], channels=channels, dtype="float32", samplerate=PREFERRED_RATE)
    except sounddevice.PortAudioError:
        return round(found["default_samplerate"])
    return PREFERRED_RATE


def _host_api(device: dict[str, Any]) -> str:
    """The system's interface that a device is reached by: the same device may be there once for each."""
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
        raise SoundDeviceError(f"{doing} failed: {error}; `neucodec devices` lists what there is") from None
