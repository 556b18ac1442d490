"""Hum: lines at multiples of 50 Hz, the codec's frame rate, in the spectrum of the output.

A decoder that repeats the same sound in every frame adds such lines, and pauses let them be heard. The log spectra of
windows of 0.2 s are averaged, so that pauses count as much as speech, and the lines are compared with the median of the
spectrum around them: 0 dB without lines.
"""

import numpy as np
from scipy.ndimage import median_filter

from neucodec_streaming.config import INPUT_RATE, TOKENS_PER_SECOND

WINDOW = INPUT_RATE // 5
RESOLUTION_HZ = INPUT_RATE // WINDOW
RANGE_HZ = (500, 7_500)
AROUND_HZ = 100
_FLOOR = 1e-10


def hum(heard: np.ndarray) -> dict[str, float]:
    """(T,) at 16 kHz -> `hum_db`, the mean height of the lines from 500 to 7,500 Hz. Empty for less than a window."""
    if len(heard) < WINDOW:
        return {}
    frames = np.lib.stride_tricks.sliding_window_view(heard.astype(np.float64), WINDOW)[:: WINDOW // 2]
    powers = np.square(np.abs(np.fft.rfft(frames * np.hanning(WINDOW))))
    spectrum = 10.0 * np.log10(powers + _FLOOR).mean(axis=0)
    above = spectrum - median_filter(spectrum, AROUND_HZ // RESOLUTION_HZ + 1)
    lines = np.arange(RANGE_HZ[0], RANGE_HZ[1] + 1, TOKENS_PER_SECOND) // RESOLUTION_HZ
    return {"hum_db": float(above[lines].mean())}
