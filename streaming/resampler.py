"""A streaming resampler with low, exact delay: a windowed sinc. No torch, no I/O.

The filter is our own because a live stream waits for it: it spans 32 samples of the lower rate, a delay of 4 ms at 8
kHz. libsoxr, which resamples recordings elsewhere in the project, works in blocks and delays by up to 116 ms.
"""

from functools import lru_cache
from math import ceil, gcd

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from neucodec_streaming.errors import ConfigError

MIN_RATE = 4_000
MAX_RATE = 768_000
_ZERO_CROSSINGS = 32
"""Length of the sinc on either side, in samples of the lower rate: its delay."""
_PASSBAND_EDGE = 0.94
"""The -6 dB point as a share of the lower Nyquist frequency, such that the stopband starts there."""
_KAISER_BETA = 7.0
"""Kaiser beta: 70 dB of attenuation in the stopband, flat up to 0.87 of the Nyquist frequency."""
_FEW_PLACES = 8
"""Up to this many phases, output samples of one phase are computed together."""
_BLOCK_SAMPLES = 512
"""Above that, this many neighbours are computed together, which bounds the memory of their windows."""


class Resampler:
    """Converts a stream of float32 mono from one rate to another; equal rates pass through unchanged.

    A linear-phase windowed sinc whose delay is compensated: output sample n lies at the time of input n * input_rate /
    output_rate. The output does not depend on how the input is cut into packets. `flush` completes it to n *
    output_rate // input_rate samples for n of input. Raises ConfigError for a rate that is not a whole number of hertz
    in range.
    """

    def __init__(self, input_rate: int, output_rate: int) -> None:
        for name, rate in (("input", input_rate), ("output", output_rate)):
            if isinstance(rate, bool) or not isinstance(rate, int) or not MIN_RATE <= rate <= MAX_RATE:
                raise ConfigError(f"{name} rate is {rate!r}: expected whole hertz from {MIN_RATE} to {MAX_RATE}")
        self.input_rate = input_rate
        self.output_rate = output_rate
        common = gcd(input_rate, output_rate)
        self._up, self._down = output_rate // common, input_rate // common
        self._passes = self._up == self._down
        self._reach = 0 if self._passes else _reach(self._up, self._down)
        self.clear()

    @property
    def delay_ms(self) -> float:
        """The longest wait of a sample for later ones; 0 for equal rates."""
        return 0.0 if self._passes else (self._reach + 1) * 1000 / self.input_rate

    def needed(self, output_samples: int) -> int:
        """Input samples needed for `output_samples` (at least 1) before any flush."""
        return (output_samples - 1) * self._down // self._up + self._reach + 1

    def clear(self) -> None:
        """Discards the buffered input; the stream is then as new."""
        self._fed = self._given = 0
        self._held = np.zeros(max(self._reach - 1, 0), np.float32)  # the window of the next output sample

    def feed(self, audio: np.ndarray, last: bool = False) -> np.ndarray:
        """Converts the next packet, float32 (n,) as from `check_audio`, to float32 (m,) with m >= 0.

        `last` adds the rest of the stream and resets it.
        """
        if self._passes:
            return audio
        self._fed += audio.size
        if last:
            stop = self._fed * self._up // self._down
            samples = np.concatenate([self._held, audio, np.zeros(2 * self._reach, np.float32)])
        else:
            stop = max(self._given, -((self._reach - self._fed) * self._up // self._down))
            samples = np.concatenate([self._held, audio])
        output = self._filtered(samples, stop)
        if last:
            self.clear()
        else:
            self._held = samples[stop * self._down // self._up - self._given * self._down // self._up :].copy()
            self._given = stop
        return output

    def flush(self) -> np.ndarray:
        """The rest of the stream; it is then as new."""
        return self.feed(np.zeros(0, np.float32), last=True)

    def _filtered(self, samples: np.ndarray, stop: int) -> np.ndarray:
        """Output from `_given` to `stop`; `samples` starts at the window of the first of them."""
        output = np.empty(stop - self._given, np.float32)
        if not output.size:
            return output
        up, down = self._up, self._down
        filters = _filters(up, down)
        windows = sliding_window_view(samples, 2 * self._reach)
        first = self._given * down // up
        if up <= _FEW_PLACES:  # a view, nothing is copied
            for residue in range(min(up, output.size)):
                place, same = (self._given + residue) * down, output[residue::up]
                np.einsum("nt,t->n", windows[place // up - first :: down][: same.size], filters[place % up], out=same)
            return output
        for start in range(0, output.size, _BLOCK_SAMPLES):
            block = output[start : start + _BLOCK_SAMPLES]
            places = (self._given + start + np.arange(block.size)) * down
            np.einsum("nt,nt->n", windows[places // up - first], filters[places % up], out=block)
        return output


def _reach(up: int, down: int) -> int:
    """Input samples on either side of the filter's centre."""
    return ceil(_ZERO_CROSSINGS * max(1, down / up))


@lru_cache(maxsize=32)
def _filters(up: int, down: int) -> np.ndarray:
    """The filter at each of the `up` phases of an output sample between two of input: float32 (up, 2 * reach).

    The taps are the inputs from `reach` - 1 before to `reach` after, and sum to 1 for each phase. Kaiser-windowed sinc
    (Kaiser 1974).
    """
    reach = _reach(up, down)
    distance = np.arange(up)[:, None] / up - np.arange(1 - reach, reach + 1)  # (up, T), in input samples
    window = np.i0(_KAISER_BETA * np.sqrt(np.maximum(1 - (distance / reach) ** 2, 0)))
    taps = window * np.sinc(distance * _PASSBAND_EDGE * min(1, up / down))
    return (taps / taps.sum(axis=1, keepdims=True)).astype(np.float32)


def resample(audio: np.ndarray, input_rate: int, output_rate: int) -> np.ndarray:
    """Resamples a whole recording: float32 (n,) -> float32 (m,)."""
    return Resampler(input_rate, output_rate).feed(audio, last=True)
