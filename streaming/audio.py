"""Audio as bytes and at other rates: PCM formats, checks, downmix, a streaming resampler. No torch, no I/O.

Inside the project audio is float32 mono, full scale 1.0; bytes are one of PCM_FORMATS, little-endian. What cannot be
used raises AudioError, which names the value and what to do instead; nothing is repaired in silence, except that
`pcm_to_bytes` clips at full scale, as every converter does.

The resampler is a filter of our own because a live stream waits for it: it holds 32 samples of the lower rate, 4 ms at
8 kHz. libsoxr, which resamples recordings elsewhere in the project, works in blocks: it holds back as much as 116 ms.
"""

from functools import cache
from math import isfinite
from typing import Any

import numpy as np

from neucodec_streaming.errors import AudioError, ConfigError

PCM_FORMATS: dict[str, np.dtype[Any]] = {
    "s16le": np.dtype("<i2"),
    "f32le": np.dtype("<f4"),
    "mulaw": np.dtype("u1"),
    "alaw": np.dtype("u1"),
}
"""Wire name of a format -> the type of one sample. `mulaw` and `alaw` are those of ITU-T G.711."""
_S16_SCALE = np.float32(32_768)
_S16_LEAST, _S16_MOST = -_S16_SCALE, _S16_SCALE - 1


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
    if sample.itemsize == 1:
        return _decoded(pcm_format)[samples]
    if pcm_format == "s16le":
        return np.multiply(samples, 1 / _S16_SCALE, dtype=np.float32)
    return check_audio(samples.astype(np.float32))


def pcm_to_bytes(audio: np.ndarray, pcm_format: str = "s16le") -> bytes:
    """Samples as bytes: float32 (n,) -> n samples; all but f32le round to the nearest of 16 bits and clip there."""
    sample = _sample_type(pcm_format)
    audio = check_audio(audio)
    if pcm_format != "f32le":
        audio = audio * _S16_SCALE
        np.rint(audio, out=audio)
        audio.clip(_S16_LEAST, _S16_MOST, out=audio)
    if sample.itemsize == 1:
        return _encoded(pcm_format)[audio.astype(np.int16).view(np.uint16)].tobytes()
    return audio.astype(sample).tobytes()


def _g711(law: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The 128 magnitudes of a law, ascending, as 16-bit values int64 (128,): output values, the decision values from
    which on they stand for the input, and the bytes of the positive ones (those of negative ones lack the top bit).
    """
    step = np.arange(128)
    segment, place = step >> 4, step & 15
    if law == "mulaw":
        value = (8 * place + 132 << segment) - 132
        return value, np.maximum(value - (4 << segment), 0), 0xFF - step
    double = np.maximum(segment - 1, 0)
    value = 16 * place + 8 + 256 * (segment > 0) << double
    return value, value - (8 << double), step ^ 0xD5


@cache
def _decoded(law: str) -> np.ndarray:
    """Byte -> sample: float32 (256,)."""
    value, _, code = _g711(law)
    table = np.zeros(256, np.float32)
    table[code], table[code ^ 0x80] = value, -value
    return table / _S16_SCALE


@cache
def _encoded(law: str) -> np.ndarray:
    """16-bit sample as uint16 -> byte: uint8 (65536,). A negative sample is coded as its one's complement is, as in
    the reference software of ITU-T G.191."""
    _, decision, code = _g711(law)
    positive = code[np.searchsorted(decision, np.arange(32_768), side="right") - 1]
    return np.concatenate([positive, positive[::-1] ^ 0x80]).astype(np.uint8)


def check_audio(audio: Any) -> np.ndarray:
    """The array itself, if it is finite float32 mono (n,); otherwise AudioError with what it is and what to do."""
    if not isinstance(audio, np.ndarray):
        raise AudioError(f"audio is a {type(audio).__name__}: give a numpy array of float32")
    if audio.dtype != np.float32:
        raise AudioError(f"audio is of type {audio.dtype}: give float32 with full scale 1.0 (int16: divide by 32768)")
    if audio.ndim != 1:
        raise AudioError(f"audio has shape {audio.shape}: give mono samples of shape (n,), for instance by downmix()")
    if not isfinite(np.vdot(audio, audio)) and not np.isfinite(audio).all():  # the first is quicker
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


MAX_AMPLITUDE = 1000.0
"""Samples beyond this are no audio of full scale 1, and far beyond it they would overflow inside."""


def checked_pcm(pcm: np.ndarray) -> np.ndarray:
    """The same array, if it is finite float32 mono (n,). Raises AudioError."""
    if not isinstance(pcm, np.ndarray) or pcm.dtype != np.float32 or pcm.ndim != 1:
        raise AudioError(f"audio is {described(pcm)}: give a float32 numpy array of shape (n,), mono at 16 kHz")
    if np.vdot(pcm, pcm) <= MAX_AMPLITUDE**2:
        return pcm  # then so is every sample: the quickest to tell, and nearly always enough
    if not np.isfinite(pcm).all():
        place = int(np.argmin(np.isfinite(pcm)))
        raise AudioError(f"sample {place} is {pcm[place]}: every sample must be finite")
    if len(pcm) and max(pcm.max(), -pcm.min()) > MAX_AMPLITUDE:
        place = int(np.argmax(np.abs(pcm)))
        raise AudioError(f"sample {place} is {pcm[place]}: full scale is 1.0, so divide 16-bit samples by 32768")
    return pcm


def described(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"a {value.dtype} array of shape {value.shape}"
    return f"{type(value).__name__} {value!r:.60}"
