"""Flicker: how much more strongly a voice is modulated at 50 Hz, the codec's frame rate, than the original.

If a decoder's frames disagree, its sound changes from frame to frame: visible as vertical stripes in a spectrogram,
audible as roughness. The envelope of four bands is computed in windows of 8 ms, 400 times a second; over stretches of
160 ms in which the original is voiced throughout, the energy of the log envelope near 50 Hz is compared. For voices of
60 to 400 Hz, no harmonics of the envelope fall there.
"""

from itertools import pairwise

import numpy as np

from benchmarks.metrics.pitch import RANGE_DB, VOICED, periods
from neucodec_streaming.config import INPUT_HOP, INPUT_RATE

RATE_HZ = 400
WINDOW = 128
BAND_EDGES_HZ = (300, 1_000, 2_000, 3_000, 4_500)
STRETCH_FRAMES = 8
MODULATION_HZ = (45.0, 55.0)
_FLOOR = 1e-9


def flicker(original: np.ndarray, heard: np.ndarray) -> dict[str, float]:
    """Two (T,) at 16 kHz -> `flicker_db`, the energy of the modulation near 50 Hz relative to the original.

    Empty if no stretch is voiced for long enough.
    """
    starts = voiced_stretches(original)
    if not starts:
        return {}
    energies = [modulation(audio, starts) for audio in (original, heard)]
    return {"flicker_db": float(10.0 * np.log10((energies[1] + _FLOOR) / (energies[0] + _FLOOR)))}


def voiced_stretches(audio: np.ndarray) -> list[int]:
    """Returns the first frames (of 20 ms) of stretches of 160 ms that are voiced throughout and not quiet."""
    strength, _ = periods(audio)
    frames = audio[: len(audio) // INPUT_HOP * INPUT_HOP].reshape(-1, INPUT_HOP)[: len(strength)]
    levels = np.square(frames).mean(axis=1)
    voiced = (strength[: len(levels)] > VOICED) & (levels > levels.max(initial=0.0) * 10 ** (-RANGE_DB / 10))
    starts, at = [], 0
    while at + STRETCH_FRAMES <= len(voiced):
        if voiced[at : at + STRETCH_FRAMES].all():
            starts.append(at)
            at += STRETCH_FRAMES
        else:
            at += 1
    return starts


def modulation(audio: np.ndarray, starts: list[int]) -> float:
    """Returns the mean energy of the log envelopes near 50 Hz over the stretches that start at those frames."""
    hop = INPUT_RATE // RATE_HZ
    padded = np.pad(audio.astype(np.float64), WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::hop]
    powers = np.square(np.abs(np.fft.rfft(frames * np.hanning(WINDOW))))
    edges = [round(hertz * WINDOW / INPUT_RATE) for hertz in BAND_EDGES_HZ]
    bands = np.stack([powers[:, a:b].sum(axis=1) for a, b in pairwise(edges)], axis=1)
    envelopes = np.log(bands + _FLOOR)  # (400 T, 4)
    length, a_frame = STRETCH_FRAMES * INPUT_HOP // hop, INPUT_HOP // hop
    cuts = [envelopes[start * a_frame : start * a_frame + length] for start in starts]
    stretches = np.stack([cut for cut in cuts if len(cut) == length])
    taper = np.hanning(length)[:, None]
    spectra = np.abs(np.fft.rfft((stretches - stretches.mean(axis=1, keepdims=True)) * taper, axis=1)) ** 2
    hertz = np.fft.rfftfreq(length, 1.0 / RATE_HZ)
    near = (hertz >= MODULATION_HZ[0]) & (hertz <= MODULATION_HZ[1])
    return float(spectra[:, near].mean())
