"""Audio as bytes and at other rates: PCM formats, checks, downmix, a streaming resampler. No torch, no I/O.

Inside the project audio is float32 mono, full scale 1.0; bytes are one of PCM_FORMATS, little-endian. What cannot be
used raises AudioError, which names the value and what to do instead; nothing is repaired in silence, except that
`pcm_to_bytes` clips at full scale, as every converter does.
"""

from typing import Any

import numpy as np
import soxr

from streaming.errors import AudioError, ConfigError

PCM_FORMATS: dict[str, np.dtype[Any]] = {"s16le": np.dtype("<i2"), "f32le": np.dtype("<f4")}
"""Wire name of a format -> the type of one sample."""
LOWEST_RATE = 4_000
HIGHEST_RATE = 768_000
_S16_SCALE = 32_768.0


def _sample_type(pcm_format: str) -> np.dtype[Any]:
    try:
        return PCM_FORMATS[pcm_format]
    except KeyError:
        raise ConfigError(f"PCM format {pcm_format!r} is unknown: give one of {', '.join(PCM_FORMATS)}") from None


def pcm_from_bytes(payload: bytes | bytearray | memoryview, pcm_format: str = "s16le") -> np.ndarray:
    """Samples of one packet: bytes -> float32 (n,), a copy.

    Raises AudioError when the bytes are no whole number of samples or hold NaN or infinity.
    """
    sample = _sample_type(pcm_format)
    if len(payload) % sample.itemsize:
        raise AudioError(
            f"{len(payload)} bytes are no whole number of {pcm_format} samples of {sample.itemsize} bytes: "
            f"cut packets between samples"
        )
    samples = np.frombuffer(payload, sample)
    if pcm_format == "s16le":
        return samples.astype(np.float32) / np.float32(_S16_SCALE)
    return check_audio(samples.astype(np.float32))


def pcm_to_bytes(audio: np.ndarray, pcm_format: str = "s16le") -> bytes:
    """Samples as bytes: float32 (n,) -> n samples; s16le rounds to the nearest and clips at full scale."""
    sample = _sample_type(pcm_format)
    audio = check_audio(audio)
    if pcm_format == "s16le":
        audio = np.clip(np.rint(audio * np.float32(_S16_SCALE)), -_S16_SCALE, _S16_SCALE - 1)
    return audio.astype(sample).tobytes()


def check_audio(audio: Any) -> np.ndarray:
    """The array itself, if it is finite float32 mono (n,); otherwise AudioError with what it is and what to do."""
    if not isinstance(audio, np.ndarray):
        raise AudioError(f"audio is a {type(audio).__name__}: give a numpy array of float32")
    if audio.dtype != np.float32:
        raise AudioError(f"audio is of type {audio.dtype}: give float32 with full scale 1.0 (int16: divide by 32768)")
    if audio.ndim != 1:
        raise AudioError(f"audio has shape {audio.shape}: give mono samples of shape (n,), for instance by downmix()")
    if not np.isfinite(audio).all():
        where = int(np.flatnonzero(~np.isfinite(audio))[0])
        raise AudioError(f"sample {where} of {audio.size} is {audio[where]}: audio must be finite")
    return audio


def downmix(audio: np.ndarray) -> np.ndarray:
    """The mean over channels: float32 (n, channels) or (n,) -> (n,)."""
    if audio.ndim == 1:
        return audio
    if audio.ndim != 2 or audio.shape[1] == 0:
        raise AudioError(f"audio has shape {audio.shape}: give (samples, channels) with at least one channel")
    return audio[:, 0] if audio.shape[1] == 1 else audio.mean(axis=1, dtype=np.float32)


class Resampler:
    """A stream of float32 mono from one rate to another (libsoxr, high quality); equal rates pass through untouched.

    The output does not depend on how the input is cut into packets, and `flush` brings it to the rounded length of the
    input at the new rate.
    """

    def __init__(self, input_rate: int, output_rate: int) -> None:
        for name, rate in (("input", input_rate), ("output", output_rate)):
            if isinstance(rate, bool) or not isinstance(rate, int) or not LOWEST_RATE <= rate <= HIGHEST_RATE:
                raise ConfigError(f"{name} rate is {rate!r}: give whole hertz from {LOWEST_RATE} to {HIGHEST_RATE}")
        self.input_rate = input_rate
        self.output_rate = output_rate
        self._soxr = None if input_rate == output_rate else soxr.ResampleStream(input_rate, output_rate, 1, "float32")

    @property
    def delay_samples(self) -> float:
        """Output samples that the input so far still owes; 0 after a flush."""
        return 0.0 if self._soxr is None else float(self._soxr.delay())

    def feed(self, audio: np.ndarray, last: bool = False) -> np.ndarray:
        """The next packet: float32 (n,) -> float32 (m,), m may be 0. `last` adds the rest and starts anew."""
        audio = check_audio(audio)
        if self._soxr is None:
            return audio
        output = self._soxr.resample_chunk(audio, last=last)
        if last:
            self._soxr.clear()
        return output

    def flush(self) -> np.ndarray:
        """What is still inside; the stream is then as new."""
        return self.feed(np.zeros(0, np.float32), last=True)

    def clear(self) -> None:
        """Drop what is inside; the stream is then as new."""
        if self._soxr is not None:
            self._soxr.clear()


def resample(audio: np.ndarray, input_rate: int, output_rate: int) -> np.ndarray:
    """A whole recording at another rate: float32 (n,) -> float32 (m,)."""
    return Resampler(input_rate, output_rate).feed(audio, last=True)
