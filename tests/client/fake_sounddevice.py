"""A stand-in for the module sounddevice: devices that a test drives by hand, block by block."""

from types import SimpleNamespace

import numpy as np

DEVICES = [
    {"name": "Fake Mic", "max_input_channels": 2, "max_output_channels": 0, "default_samplerate": 48_000.0},
    {"name": "Fake Speaker", "max_input_channels": 0, "max_output_channels": 2, "default_samplerate": 48_000.0},
]


class PortAudioError(Exception):
    """As in sounddevice."""


class Stream:
    """An input or output stream; `last` is the one that was opened last."""

    last: "Stream"

    def __init__(self, callback, samplerate, blocksize, channels, device, dtype, latency):
        self.callback, self.blocksize, self.channels = callback, blocksize, channels
        self.state = "open"
        Stream.last = self

    def start(self):
        self.state = "running"

    def stop(self):
        self.state = "played to its end"

    def close(self):
        self.state = "closed" if self.state == "running" else f"{self.state}, closed"

    def record(self, block: np.ndarray, overflow: bool = False) -> None:
        """What PortAudio does when a microphone has a block."""
        self.callback(block, len(block), None, SimpleNamespace(input_overflow=overflow))
        block[:] = np.nan  # the buffer is PortAudio's: whoever kept it instead of a copy sees this

    def play(self) -> np.ndarray:
        """What PortAudio does when a speaker wants a block."""
        block = np.full((self.blocksize, self.channels), np.nan, np.float32)
        self.callback(block, self.blocksize, None, SimpleNamespace(output_underflow=False))
        return block[:, 0]


InputStream = OutputStream = Stream
default = SimpleNamespace(device=[0, 1])


def query_devices(device=None, kind=None):
    """All devices, or the one that is meant."""
    if device is None and kind is None:
        return DEVICES
    for index, found in enumerate(DEVICES):
        wanted = (
            device is None or device == index or (isinstance(device, str) and device.lower() in found["name"].lower())
        )
        if wanted and found[f"max_{kind}_channels"]:
            return found
    raise ValueError(f"No {kind} device matching {device!r}")
