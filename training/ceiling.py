"""Where a model loses intelligibility: `python -m training.ceiling nano --work FOLDER`.

Replaces one property of a model's output by that of the recording and measures again, offline, on the clips of
`training.validate`. The property whose replacement gains most is the one that the tokens describe worst.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soxr
import torch
from scipy.signal import istft, stft

from neucodec_streaming import load_codec
from training.data import RATE_IN, RATE_OUT, Speech
from training.validate import clips, measures

WINDOW, HOP = 512, 128
HOP_MS = 1000 * HOP // RATE_IN
BAND_EDGES_HZ = 150.0 * 2.0 ** ((np.arange(18) - 0.5) / 3.0)
"""Edges of 17 third octaves, STOI's 15 and two above; frequencies below and above form two more bands."""
MAX_GAIN = 30.0

Replacement = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Makes a model's spectrum more like the recording's: both complex (257, frames), the recording's first."""


def spectrum(pcm: np.ndarray) -> np.ndarray:
    """Complex (257, frames), in windows of 32 ms."""
    return stft(pcm, RATE_IN, nperseg=WINDOW, noverlap=WINDOW - HOP)[2]


def audio(of: np.ndarray, samples: int) -> np.ndarray:
    """Returns float32 (samples,)."""
    pcm = istft(of, RATE_IN, nperseg=WINDOW, noverlap=WINDOW - HOP)[1][:samples]
    return np.pad(pcm, (0, samples - len(pcm))).astype(np.float32)


def with_envelope(recorded: np.ndarray, said: np.ndarray, frames: int) -> np.ndarray:
    """Returns `said` with the energy of `recorded` in each third octave, averaged over `frames` hops."""
    frequencies = np.fft.rfftfreq(WINDOW, 1.0 / RATE_IN)
    band = np.searchsorted(BAND_EDGES_HZ, frequencies)
    is_in = (band == np.arange(len(BAND_EDGES_HZ) + 1)[:, None]).astype(float)

    def energy(x: np.ndarray) -> np.ndarray:
        smooth = np.ones(frames) / frames
        return np.apply_along_axis(np.convolve, 1, is_in @ np.abs(x) ** 2, smooth, mode="same")

    gain = np.sqrt(energy(recorded) / (energy(said) + 1e-10)).clip(0.0, MAX_GAIN)
    return said * (is_in.T @ gain)


def with_band(recorded: np.ndarray, said: np.ndarray, low_hz: float, high_hz: float) -> np.ndarray:
    """Returns `said` with the band [low_hz, high_hz) of `recorded`."""
    frequencies = np.fft.rfftfreq(WINDOW, 1.0 / RATE_IN)
    inside = (frequencies >= low_hz) & (frequencies < high_hz)
    return np.where(inside[:, None], recorded, said)


def replacements() -> Iterator[tuple[str, Replacement]]:
    yield "nothing", lambda recorded, said: said
    yield "phase", lambda recorded, said: np.abs(said) * np.exp(1j * np.angle(recorded))
    yield "magnitude", lambda recorded, said: np.abs(recorded) * np.exp(1j * np.angle(said))
    for frames in (1, 3, 5, 13):
        name = f"third-octave envelope, {frames * HOP_MS} ms"
        yield name, lambda recorded, said, frames=frames: with_envelope(recorded, said, frames)
    for low, high in ((0, 500), (500, 1000), (1000, 2000), (2000, 4000), (4000, 8000)):
        yield f"{low} to {high} Hz", lambda recorded, said, low=low, high=high: with_band(recorded, said, low, high)


def main() -> None:
    parser = argparse.ArgumentParser(description="Find what a model's tokens describe worst.")
    parser.add_argument("model", help="bundled name or folder")
    parser.add_argument("--work", type=Path, required=True, help="folder with prepared speech")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    codec = load_codec(arguments.model)
    pairs = []
    for clip in clips(Speech(arguments.work, held_out=True)):
        said = soxr.resample(codec.decode(codec.encode(clip)), RATE_OUT, RATE_IN)[: len(clip)]
        pairs.append((clip, np.pad(said, (0, len(clip) - len(said)))))
    for name, replace in replacements():
        changed = ((clip, audio(replace(spectrum(clip), spectrum(said)), len(clip))) for clip, said in pairs)
        found = measures(changed)
        print(f"{name:32} STOI {found['stoi']:.4f}  PESQ {found['pesq']:.3f}", flush=True)


if __name__ == "__main__":
    main()
