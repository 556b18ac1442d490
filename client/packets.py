"""Converts blocks of a recording to packets of a session: checked, mono, at the session's rate, of equal length."""

from collections.abc import Iterator

import numpy as np

from neucodec_streaming.audio import downmix
from neucodec_streaming.client.errors import FileError
from neucodec_streaming.errors import AudioError, ConfigError
from neucodec_streaming.resampler import Resampler

MAX_PEAK = 8.0
"""Peaks up to this times full scale are clipped and reported; higher ones mean another scale and are refused."""


class Packetizer:
    """feed(float32 (n, channels)) -> packets of float32 mono of `packet_samples` at `rate`; flush() -> the rest.

    `name` is the recording's in messages; positions in them count from its start. Raises FileError for a rate that
    cannot be converted, AudioError for samples that are not finite or far beyond full scale.
    """

    def __init__(self, name: str, input_rate: int, rate: int, packet_samples: int) -> None:
        self._name, self._rate = name, input_rate
        self._size = packet_samples
        try:
            self._resampler = Resampler(input_rate, rate)
        except ConfigError as error:
            raise FileError(f"{name} cannot be used: {error}") from None
        self._waiting = np.zeros(0, np.float32)
        self._clipped = 0
        self.samples = 0
        self.peak = 0.0

    @property
    def seconds(self) -> float:
        """Seconds fed so far."""
        return self.samples / self._rate

    @property
    def notes(self) -> list[str]:
        """Remarks on the samples for the user."""
        if not self._clipped:
            return []
        clipped = f"{self._clipped} sample{'s are' if self._clipped != 1 else ' is'} clipped"
        return [f"{self._name} has a peak of {self.peak:.3g}, full scale is 1: {clipped}"]

    def feed(self, block: np.ndarray) -> Iterator[np.ndarray]:
        """The complete packets."""
        self._check(block)
        self.samples += len(block)
        yield from self._packets(self._resampler.feed(downmix(block)))

    def flush(self) -> Iterator[np.ndarray]:
        """The remaining packets; the last one may be shorter."""
        yield from self._packets(self._resampler.flush())
        if self._waiting.size:
            yield self._waiting

    def _packets(self, audio: np.ndarray) -> Iterator[np.ndarray]:
        audio = np.concatenate([self._waiting, audio])
        whole = audio.size // self._size * self._size
        self._waiting = audio[whole:]
        yield from audio[:whole].reshape(-1, self._size)

    def _check(self, block: np.ndarray) -> None:
        size = np.abs(block)
        peak = float(size.max(initial=0.0))  # NaN if a sample is NaN
        if peak <= 1.0:
            self.peak = max(self.peak, peak)
            return
        if not peak <= MAX_PEAK:
            row = int(np.flatnonzero(~(size <= MAX_PEAK).all(axis=1))[0])
            value = block[row][~(size[row] <= MAX_PEAK)][0]
            place = self.samples + row
            where = f"{self._name}: sample {place} ({place / self._rate:.3f} s) is {value:g}"
            if not np.isfinite(value):
                raise AudioError(f"{where}: audio must be finite")
            raise AudioError(f"{where}, but full scale is 1: scale it (divide 16-bit values by 32768)")
        self.peak = max(self.peak, peak)
        self._clipped += int((size > 1.0).any(axis=1).sum())
