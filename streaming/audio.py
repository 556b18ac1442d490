"""Audio as arrays and as bytes: its check, PCM conversion, downmix. No torch, no I/O.

Inside the project audio is float32 mono with full scale 1.0; bytes are in one of PCM_FORMATS (formats.py),
little-endian. Unusable audio raises AudioError, which names the value and the remedy. Nothing is repaired silently,
except that `pcm_to_bytes` clips at full scale, as every converter does.
"""

from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np

from neucodec_streaming.errors import AudioError, ConfigError, InputError
from neucodec_streaming.formats import PCM_FORMATS, PcmFormat

_S16_SCALE = np.float32(32_768)
_S16_LEAST, _S16_MOST = -_S16_SCALE, _S16_SCALE - 1
_G711 = ("mulaw", "alaw")
MAX_AMPLITUDE = 1000.0
"""Larger samples are not audio with full scale 1.0, and far larger ones would overflow in the model."""


def _format(name: str) -> PcmFormat:
    try:
        return PCM_FORMATS[name]
    except KeyError:
        raise ConfigError(f"PCM format {name!r} is unknown: choose one of {', '.join(PCM_FORMATS)}") from None


def pcm_from_bytes(payload: bytes | bytearray | memoryview, pcm_format: str = "s16le") -> np.ndarray:
    """Decodes one packet's bytes to float32 (n,), a copy.

    Raises AudioError for a partial sample, NaN or infinity.
    """
    form = _format(pcm_format)
    if len(payload) % form.sample_bytes:
        raise AudioError(
            f"{len(payload)} bytes are not a whole number of {pcm_format} samples of {form.sample_bytes} bytes: "
            "split packets between samples"
        )
    samples = np.frombuffer(payload, form.sample_type)
    if pcm_format in _G711:
        return _decoded(pcm_format)[samples]
    if pcm_format == "s16le":
        return np.multiply(samples, 1 / _S16_SCALE, dtype=np.float32)
    return check_audio(samples.astype(np.float32))


def pcm_to_bytes(audio: np.ndarray, pcm_format: str = "s16le") -> bytes:
    """Encodes float32 (n,) to bytes; all formats but f32le round to 16 bits and clip."""
    form = _format(pcm_format)
    audio = check_audio(audio)
    if pcm_format != "f32le":
        audio = audio * _S16_SCALE
        np.rint(audio, out=audio)
        audio.clip(_S16_LEAST, _S16_MOST, out=audio)
    if pcm_format in _G711:
        return _encoded(pcm_format)[audio.astype(np.int16).view(np.uint16)].tobytes()
    return audio.astype(form.sample_type, copy=False).tobytes()


def _g711(law: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The 128 magnitudes of a law, ascending, as int64 (128,): output values, the decision values from which they
    represent the input, and the bytes of the positive ones (negative ones lack the top bit).
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
    """16-bit sample as uint16 -> byte: uint8 (65536,). A negative sample is coded like its one's complement, as in the
    reference software of ITU-T G.191.
    """
    _, decision, code = _g711(law)
    positive = code[np.searchsorted(decision, np.arange(32_768), side="right") - 1]
    return np.concatenate([positive, positive[::-1] ^ 0x80]).astype(np.uint8)


def check_audio(audio: Any) -> np.ndarray:
    """Checks audio and returns it as float32 mono (n,), in place if it is a numpy array; converts tensors and lists.

    Raises AudioError, with the fault and the remedy, for other types and shapes, NaN, infinity, and samples beyond
    MAX_AMPLITUDE.
    """
    is_list = isinstance(audio, (list, tuple))
    audio = as_array(audio, "audio is a", AudioError)
    if is_list:
        audio = audio.astype(np.float32)
    if audio.dtype != np.float32:
        raise AudioError(f"audio has type {audio.dtype}: pass float32 with full scale 1.0 (int16: divide by 32768)")
    if audio.ndim != 1:
        raise AudioError(f"audio has shape {audio.shape}: pass mono samples of shape (n,), for instance from downmix()")
    if np.vdot(audio, audio) <= MAX_AMPLITUDE**2:  # then every sample is in range; fastest
        return audio
    outside = np.flatnonzero(~(np.abs(audio) <= MAX_AMPLITUDE))
    if outside.size:
        value = audio[outside[0]]
        rule = "full scale is 1.0, so divide 16-bit samples by 32768" if np.isfinite(value) else "audio must be finite"
        raise AudioError(f"sample {outside[0]} of {audio.size} is {value}: {rule}")
    return audio


def as_array(values: Any, what: str, error: type[InputError]) -> np.ndarray:
    """Converts a torch tensor or a list of numbers to a numpy array. Raises `error` for anything else."""
    if isinstance(values, np.ndarray):
        return values
    if isinstance(values, (list, tuple)) and all(isinstance(value, (int, float, np.number)) for value in values):
        return np.array(values) if values else np.zeros(0, np.int64)
    if hasattr(values, "detach"):  # a torch tensor, recognised without importing torch
        with suppress(TypeError, RuntimeError):  # bfloat16 and sparse tensors have no numpy form
            return np.asarray(values.detach().cpu().numpy())
    raise error(
        f"{what} {type(values).__name__} {values!r:.60}: pass a numpy array, a torch tensor or a list of numbers"
    )


def downmix(audio: np.ndarray) -> np.ndarray:
    """The mean over channels: float32 (n, channels) or (n,) -> (n,)."""
    if audio.ndim == 1:
        return audio
    if audio.ndim != 2 or audio.shape[1] == 0:
        raise AudioError(f"audio has shape {audio.shape}: expected (samples, channels) with at least one channel")
    return audio[:, 0] if audio.shape[1] == 1 else audio.mean(axis=1, dtype=np.float32)
