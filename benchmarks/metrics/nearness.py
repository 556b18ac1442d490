"""Distance of a stream's tokens and audio from those of the offline model, in frames of 20 ms.

A token is eight levels of two bits. Audio is at 24 kHz. Both sides have the same length. Means are over recordings, of
each recording's own value.

The seam measure is the energy of the second difference around hop borders between the outputs of two steps, over that
around borders inside a step, which are the control for the effect of overlap-add. Each is relative to the offline audio
near the same border.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from transformers.audio_utils import mel_filter_bank

from neucodec_streaming.config import OUTPUT_HOP, OUTPUT_RATE

LEVELS = 8
LEVEL_BITS = 2
FFT_SIZE = 1024
MEL_BINS = 80
RANGE_DB = 60
"""Floor of log-mel values, below the offline recording's maximum."""
FLOOR_ENERGY = 1e-8
"""-80 dBFS per sample: the floor in ratios."""
SEAM_REACH = 4
"""Second differences on each side of a border that count as part of it."""
BOOTSTRAPS = 200
START, MIDDLE, END = slice(None, 15), slice(15, -15), slice(-15, None)
"""The first 300 ms, the last 300 ms, and the frames between."""


def level_differences(tokens: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Tokens uint16 (F,) -> absolute difference of each FSQ level, (F, 8)."""
    return np.abs(levels_of(tokens) - levels_of(reference))


def levels_of(tokens: np.ndarray) -> np.ndarray:
    """Tokens uint16 (F,) -> their FSQ levels, 0 to 3, (F, 8)."""
    return (tokens.astype(np.int64)[:, None] >> LEVEL_BITS * np.arange(LEVELS)) & (2**LEVEL_BITS - 1)


def mel_magnitudes(audio: np.ndarray) -> np.ndarray:
    """Audio (F * 480,) -> (F, 80), one Hann window of 1024 samples centred on each frame."""
    side = (FFT_SIZE - OUTPUT_HOP) // 2
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(audio, side), FFT_SIZE)[::OUTPUT_HOP]
    return np.abs(np.fft.rfft(windows * np.hanning(FFT_SIZE + 1)[:-1])) @ _mel_filters()


@cache
def _mel_filters() -> np.ndarray:
    return mel_filter_bank(FFT_SIZE // 2 + 1, MEL_BINS, 0.0, OUTPUT_RATE / 2, OUTPUT_RATE, mel_scale="htk")


def log_mel_distances(audio: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Returns the mean absolute difference of the natural log of mel magnitudes in each frame: (F,)."""
    meant = mel_magnitudes(reference)
    floor = max(meant.max() * 10 ** (-RANGE_DB / 20), FLOOR_ENERGY)
    heard = mel_magnitudes(audio)
    return np.abs(np.log(np.maximum(heard, floor)) - np.log(np.maximum(meant, floor))).mean(axis=1)


def frame_energies(audio: np.ndarray) -> np.ndarray:
    """Returns the sum of squares of each frame of 480 samples: (F,)."""
    return np.square(audio.astype(np.float64)).reshape(-1, OUTPUT_HOP).sum(axis=1)


def border_energies(audio: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Returns the energy of the second difference at each hop border over that of the reference around it: (F - 1,)."""
    curvature, meant = (np.square(np.diff(x.astype(np.float64), 2, prepend=0, append=0)) for x in (audio, reference))
    borders = np.arange(OUTPUT_HOP, len(audio), OUTPUT_HOP)[:, None]
    near = borders + np.arange(-SEAM_REACH, SEAM_REACH)
    around = borders + np.arange(-OUTPUT_HOP // 2, OUTPUT_HOP // 2)
    return curvature[near].mean(axis=1) / (meant[around].mean(axis=1) + FLOOR_ENERGY)


@dataclass(frozen=True)
class Seams:
    """Border energies of one recording, streamed and offline, each (F - 1,), and which borders lie between steps."""

    streamed: np.ndarray
    offline: np.ndarray
    between_steps: np.ndarray

    @property
    def sums(self) -> list[float]:
        """Streamed energy, offline energy and number of borders, each between steps and inside them."""
        counted = (self.streamed, self.offline, np.ones_like(self.streamed))
        return [float(x[places].sum()) for x in counted for places in (self.between_steps, ~self.between_steps)]


def seams_of(pieces: list[np.ndarray], reference: np.ndarray) -> Seams:
    audio = np.concatenate(pieces)
    between = np.zeros(len(audio) // OUTPUT_HOP + 1, bool)
    between[np.cumsum([len(piece) for piece in pieces]) // OUTPUT_HOP] = True
    return Seams(border_energies(audio, reference), border_energies(reference, reference), between[1:-1])


def seam_measures(parts: list[Seams]) -> dict[str, float | None]:
    """Returns the seam of the stream and of the offline audio at the same borders, their ratio and its standard error.

    A seam is the energy at borders between steps divided by that at borders inside them: 1 is ideal. All values are
    None if the audio lacks one of these kinds of borders. The standard error comes from a bootstrap over recordings.
    """
    sums = np.array([part.sums for part in parts])
    if not (sums[:, 4].sum() and sums[:, 5].sum()):
        return dict.fromkeys(("seam", "seam_streamed", "seam_offline", "seam_error"))
    streamed, offline = _seam_ratios(sums.sum(axis=0))
    draws = np.random.default_rng(0).integers(len(sums), size=(BOOTSTRAPS, len(sums)))
    again = _seam_ratios(sums[draws].sum(axis=1).T)
    error = float(np.std(again[0] / again[1]))
    return {
        "seam": float(streamed / offline),
        "seam_streamed": float(streamed),
        "seam_offline": float(offline),
        "seam_error": error,
    }


def _seam_ratios(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums (6, ...) as in `Seams.sums` -> mean energy per border between steps over that inside them, streamed and
    offline.
    """
    share = sums[5] / sums[4]
    return sums[0] / sums[1] * share, sums[2] / sums[3] * share


@dataclass(frozen=True)
class Nearness:
    """Level differences (F, 8); log-mel distance, signal and error energy, each (F,)."""

    levels: np.ndarray
    log_mel: np.ndarray
    signal: np.ndarray
    error: np.ndarray

    def measures(self, frames: slice = slice(None)) -> dict[str, float]:
        """Returns the shares, log-mel distance and SNR of these frames."""
        levels, signal, error = self.levels[frames], self.signal[frames], self.error[frames]
        floor = FLOOR_ENERGY * OUTPUT_HOP * len(signal)
        return {
            "levels_equal": float((levels == 0).mean()),
            "levels_within_1": float((levels <= 1).mean()),
            "tokens_equal": float((levels == 0).all(axis=1).mean()),
            "log_mel": float(self.log_mel[frames].mean()),
            "snr_db": float(10 * np.log10((signal.sum() + floor) / (error.sum() + floor))),
        }


def nearness(tokens: np.ndarray, audio: np.ndarray, meant_tokens: np.ndarray, meant_audio: np.ndarray) -> Nearness:
    """Compares tokens (F,) and audio (F * 480,)."""
    return Nearness(
        level_differences(tokens, meant_tokens),
        log_mel_distances(audio, meant_audio),
        frame_energies(meant_audio),
        frame_energies(audio - meant_audio),
    )


def means(measures: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in measures])) for name in measures[0]}
