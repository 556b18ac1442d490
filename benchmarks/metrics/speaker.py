"""Speaker similarity: the cosine of speaker embeddings of the original and of the output.

Uses the GE2E network (Wan et al. 2018) from the package Resemblyzer: three LSTMs over windows of 1.6 s. The package
itself is not imported: that would need librosa and webrtcvad, for files and for silences. The spectrogram is computed
here directly, and windows in which the original is silent do not count. Different speakers score about 0.5 to 0.7, two
recordings of one speaker 0.8 to 0.9.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.metrics.scores import Scores
from neucodec_streaming.config import INPUT_RATE

MEL_BANDS = 40
FFT, HOP = 400, 160
WINDOW_FRAMES, STEP_FRAMES = 160, 40
LEVEL_DBFS = -30.0
"""Minimum level of the network's training data."""
RANGE_DB = 30.0
"""Windows further below the loudest one count as silent."""


class SpeakerEncoder(nn.Module):
    """The loaded network. Raises ImportError if Resemblyzer is missing."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(MEL_BANDS, 256, num_layers=3, batch_first=True)
        self.linear = nn.Linear(256, 256)
        weights = torch.load(_weights_file(), map_location="cpu", weights_only=True)["model_state"]
        self.load_state_dict({name: weights[name] for name in self.state_dict()})

    @torch.no_grad()
    def likeness(self, original: np.ndarray, heard: np.ndarray) -> Scores:
        """Two (T,) at 16 kHz -> `speaker`, from 0 to 1."""
        windows = _windows(mel(original))
        levels = windows.sum(dim=(1, 2))
        loud = levels > levels.max() * 10 ** (-RANGE_DB / 10)
        voices = [self.embed(w[loud]) for w in (windows, _windows(mel(heard)))]
        return {"speaker": float(voices[0] @ voices[1])}

    def embed(self, windows: Tensor) -> Tensor:
        """Windows (N, 160, 40) -> their mean embedding (256,), of length 1."""
        _, (hidden, _) = self.lstm(windows)
        each = nn.functional.normalize(torch.relu(self.linear(hidden[-1])), dim=1)
        return nn.functional.normalize(each.mean(0), dim=0)


def mel(audio: np.ndarray) -> Tensor:
    """Returns mel powers of (T,) at 16 kHz, amplified to at least the training level: (M, 40)."""
    pcm = torch.from_numpy(audio.astype(np.float32))
    level_dbfs = 10.0 * torch.log10(pcm.square().mean() + 1e-12)
    pcm = pcm * 10.0 ** ((LEVEL_DBFS - level_dbfs).clamp(min=0.0) / 20.0)
    spectrum = torch.stft(pcm, FFT, HOP, window=torch.hann_window(FFT), pad_mode="constant", return_complex=True)
    return (_filters() @ spectrum.abs().square()).T


def _windows(frames: Tensor) -> Tensor:
    """(M, 40) -> (N, 160, 40); shorter input is padded with zeros."""
    missing = max(0, WINDOW_FRAMES - len(frames))
    return nn.functional.pad(frames, (0, 0, 0, missing)).unfold(0, WINDOW_FRAMES, STEP_FRAMES).transpose(1, 2)


@cache
def _filters() -> Tensor:
    """Triangles of equal area on Slaney's mel scale from 0 to 8 kHz: (40, 201)."""
    edges = _hertz(torch.linspace(0.0, float(_mels(INPUT_RATE / 2)), MEL_BANDS + 2, dtype=torch.float64))
    left, centre, right = (edges[i : i + MEL_BANDS, None] for i in range(3))
    bins = torch.arange(FFT // 2 + 1, dtype=torch.float64) * INPUT_RATE / FFT
    triangles = torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp(min=0.0)
    return (triangles * 2.0 / (right - left)).float()


def _mels(hertz: float) -> float:
    """Linear up to 1 kHz, logarithmic above."""
    return hertz * 3.0 / 200.0 if hertz < 1_000.0 else 15.0 + 27.0 * float(np.log(hertz / 1_000.0) / np.log(6.4))


def _hertz(mels: Tensor) -> Tensor:
    return torch.where(mels < 15.0, mels * 200.0 / 3.0, 1_000.0 * 6.4 ** ((mels - 15.0) / 27.0))


def _weights_file() -> Path:
    package = find_spec("resemblyzer")
    if package is None or not package.submodule_search_locations:
        raise ImportError("Resemblyzer, which carries the speaker encoder, is not installed")
    return Path(package.submodule_search_locations[0]) / "pretrained.pt"
