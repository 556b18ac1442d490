"""Distance of audio from its original, and means over files: STOI, extended STOI, PESQ, log-mel distance, pitch.

All measures compare at 16 kHz, aligned and at equal length; content above 8 kHz does not count (many originals have
none). PESQ is wide band (P.862.2). A score that does not exist, such as PESQ of audio without speech, is None.
"""

from collections.abc import Iterable
from functools import cache

import numpy as np
import soxr
from pesq import NoUtterancesError, pesq
from pystoi import stoi
from transformers.audio_utils import mel_filter_bank

from benchmarks.metrics.flicker import flicker
from benchmarks.metrics.hum import hum
from benchmarks.metrics.nearness import FLOOR_ENERGY, RANGE_DB
from benchmarks.metrics.pitch import pitch_kept
from neucodec_streaming.config import INPUT_HOP, INPUT_RATE, OUTPUT_RATE

FFT_SIZE = 640
MEL_BINS = 80

Scores = dict[str, float | None]


def compare(pcm: np.ndarray, audio: np.ndarray) -> Scores:
    """Returns STOI and PESQ of audio at 24 kHz against the original at 16 kHz; PESQ is None if it finds no speech."""
    original, heard = aligned(pcm, audio)
    return {"stoi": float(stoi(original, heard, INPUT_RATE)), "pesq": pesq_of(original, heard)}


def nearness_of(original: np.ndarray, heard: np.ndarray) -> Scores:
    """Both are (T,) at 16 kHz."""
    return (
        {
            "stoi": float(stoi(original, heard, INPUT_RATE)),
            "estoi": float(stoi(original, heard, INPUT_RATE, extended=True)),
            "pesq": pesq_of(original, heard),
            "log_mel": log_mel_distance(original, heard),
        }
        | pitch_kept(original, heard)
        | flicker(original, heard)
        | hum(heard)
    )


def aligned(pcm: np.ndarray, audio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Original at 16 kHz, output at 24 kHz -> both at 16 kHz, without the remainder shorter than a hop: (T,), (T,)."""
    count = whole_hops(pcm)
    return pcm[:count], soxr.resample(audio, OUTPUT_RATE, INPUT_RATE)[:count]


def whole_hops(pcm: np.ndarray) -> int:
    """Returns the samples of a recording that tokens cover."""
    return len(pcm) // INPUT_HOP * INPUT_HOP


def pesq_of(original: np.ndarray, heard: np.ndarray) -> float | None:
    """Returns wide-band PESQ, 1.0 to 4.64; None if it finds no speech."""
    try:
        return float(pesq(INPUT_RATE, original, heard, "wb"))
    except NoUtterancesError:
        return None


def log_mel_distance(original: np.ndarray, heard: np.ndarray) -> float:
    """Returns the mean absolute difference of the natural log of 80 mel magnitudes up to 8 kHz, a frame every 20 ms.

    Values are floored at 60 dB below the original's maximum.
    """
    meant = _mel_magnitudes(original)
    floor = max(meant.max() * 10 ** (-RANGE_DB / 20), FLOOR_ENERGY)
    logs = (np.log(np.maximum(magnitudes, floor)) for magnitudes in (_mel_magnitudes(heard), meant))
    return float(np.abs(np.subtract(*logs)).mean())


def _mel_magnitudes(audio: np.ndarray) -> np.ndarray:
    """(T,) at 16 kHz -> (F, 80)."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(audio, FFT_SIZE // 2), FFT_SIZE)[::INPUT_HOP]
    return np.abs(np.fft.rfft(windows * np.hanning(FFT_SIZE + 1)[:-1])) @ _mel_filters()


@cache
def _mel_filters() -> np.ndarray:
    return mel_filter_bank(FFT_SIZE // 2 + 1, MEL_BINS, 0.0, INPUT_RATE / 2, INPUT_RATE, mel_scale="htk")


def mean(scores: Iterable[Scores], measure: str) -> float | None:
    """Returns the mean of one measure over the files that have it, or None."""
    values = [value for score in scores if (value := score.get(measure)) is not None]
    return float(np.mean(values)) if values else None
