"""Pitch accuracy: the strength and the length of a voice's period, frame by frame.

Uses autocorrelation normalised by that of the window, minus a cost for every octave down (Boersma 1993), in frames of
64 ms every 20 ms. Counts only frames in which the original is voiced: a period of 60 to 400 Hz stronger than `VOICED`,
and a level at most `RANGE_DB` below its loudest frame.
"""

from functools import cache

import numpy as np

from neucodec_streaming.config import INPUT_HOP, INPUT_RATE

WINDOW = 1024
FFT_SIZE = 4096
MIN_HZ, MAX_HZ = 60, 400
VOICED = 0.7
RANGE_DB = 26
OCTAVE_COST = 0.05
SEMITONE = 2 ** (1 / 12)


def pitch_kept(original: np.ndarray, heard: np.ndarray) -> dict[str, float | None]:
    """Compares two (T,) at 16 kHz over voiced frames.

    `pitch` is the share of frames whose pitch is within a semitone of the original's, `periodicity` the mean strength
    of the period in `heard` (1: it repeats exactly). Both are None if no frame is voiced.
    """
    (strength, pitch), (strength_heard, pitch_heard) = periods(original), periods(heard)
    frames = _frames(original)
    levels = np.square(frames).mean(axis=1)
    voiced = (strength > VOICED) & (levels > levels.max() * 10 ** (-RANGE_DB / 10))
    if not voiced.any():
        return {"pitch": None, "periodicity": None}
    apart = np.abs(np.log(pitch_heard[voiced] / pitch[voiced]))
    return {
        "pitch": float((apart < np.log(SEMITONE)).mean()),
        "periodicity": float(strength_heard[voiced].mean()),
    }


def periods(audio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T,) at 16 kHz -> strength of the strongest period of each frame, 0 to 1, and its pitch in Hz: (F,), (F,)."""
    frames = _frames(audio)
    frames = (frames - frames.mean(axis=1, keepdims=True)) * np.hanning(WINDOW)
    shortest, longest = INPUT_RATE // MAX_HZ, INPUT_RATE // MIN_HZ
    likeness = _autocorrelation(frames)[:, : longest + 1]
    likeness /= (likeness[:, :1] + 1e-9) * _of_the_window()[: longest + 1]
    costs = OCTAVE_COST * np.log2(np.arange(shortest, longest + 1) / shortest)
    lags = shortest + (likeness[:, shortest:] - costs).argmax(axis=1)
    return np.take_along_axis(likeness, lags[:, None], axis=1)[:, 0], INPUT_RATE / lags


def _frames(audio: np.ndarray) -> np.ndarray:
    """(T,) -> (F, 1024)."""
    padded = np.pad(audio.astype(np.float64), (0, max(0, WINDOW - len(audio))))
    return np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::INPUT_HOP]


def _autocorrelation(frames: np.ndarray) -> np.ndarray:
    return np.fft.irfft(np.abs(np.fft.rfft(frames, FFT_SIZE)) ** 2)


@cache
def _of_the_window() -> np.ndarray:
    likeness = _autocorrelation(np.hanning(WINDOW))
    return likeness / likeness[0]
