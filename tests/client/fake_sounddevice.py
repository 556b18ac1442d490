"""A stand-in for the module sounddevice: devices that a test drives by hand, block by block."""

from types import SimpleNamespace

import numpy as np

LOW_OUTPUT_LATENCY_S = 0.01
LEAD_S = 0.03
"""Time from the request for a block to the moment when it is heard."""


def made_device(index: int, name: str, inputs: int, outputs: int, rate: float = 48_000.0) -> dict:
    """`rate` is the only rate that the device accepts."""
    return {
        "index": index,
        "name": name,
        "hostapi": 0,
        "max_input_channels": inputs,
        "max_output_channels": outputs,
        "default_samplerate": rate,
        "default_low_output_latency": LOW_OUTPUT_LATENCY_S,
    }


DEVICES = [made_device(0, "Fake Mic", 2, 0), made_device(1, "Fake Speaker", 0, 1)]


class PortAudioError(Exception):
    """As in sounddevice."""


class Stream:
    """`last` is the stream opened last."""

    last: "Stream"

    def __init__(self, callback, samplerate, blocksize, channels, device, dtype, latency, finished_callback):
        self.callback, self.blocksize, self.channels = callback, blocksize, channels
        self.samplerate, self.unplug = samplerate, finished_callback
        self._time = 0.0
        self.state = "open"
        Stream.last = self

    @property
    def time(self):
        """Seconds of the device's clock, which an open stream has."""
        if "closed" in self.state:
            raise PortAudioError("Error getting stream time")
        return self._time

    def start(self):
        self.state = "running"

    def stop(self):
        self.state = "played to its end"

    def close(self):
        self.state = "closed" if self.state == "running" else f"{self.state}, closed"

    def record(self, block: np.ndarray, overflow: bool = False) -> None:
        """Acts as PortAudio when a microphone has a block."""
        times = SimpleNamespace(currentTime=self.time, inputBufferAdcTime=self.time - len(block) / self.samplerate)
        self.callback(block, len(block), times, SimpleNamespace(input_overflow=overflow))
        block[:] = np.nan  # the buffer is PortAudio's: overwriting it exposes a missing copy

    def play(self, underflow: bool = False) -> np.ndarray:
        """Acts as PortAudio when a speaker needs a block; the duration of the block then passes."""
        block = np.full((self.blocksize, self.channels), np.nan, np.float32)
        times = SimpleNamespace(currentTime=self.time, outputBufferDacTime=self.time + LEAD_S)
        self.callback(block, self.blocksize, times, SimpleNamespace(output_underflow=underflow))
        self._time += self.blocksize / self.samplerate
        return block[:, 0]


def query_hostapis(index):
    return {"name": ("ALSA", "JACK")[index]}


InputStream = OutputStream = Stream
default = SimpleNamespace(device=[0, 1])


def query_devices(device=None, kind=None):
    """All devices if `kind` is None, else the first of that kind with that number, or any if `device` is None."""
    if kind is None:
        return DEVICES
    for found in DEVICES:
        if device in (None, found["index"]) and found[f"max_{kind}_channels"]:
            return found
    raise ValueError(f"No {kind} device matching {device!r}")


def check_settings(device, channels, dtype, samplerate):
    if samplerate != DEVICES[device]["default_samplerate"]:
        raise PortAudioError("Invalid sample rate")


check_input_settings = check_output_settings = check_settings
