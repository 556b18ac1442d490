"""DistilMOS: a prediction of how listeners would rate the quality of audio, from 1 to 5, without a reference.

Uses Microsoft's network (Stahl and Gamper, arXiv 2502.05356) from the package `distillmos`. It was distilled from a
large self-supervised model, so it detects other faults than DNSMOS does. The package imports torchaudio to read files,
which is not needed here: an empty module replaces it during the import.
"""

import contextlib
import io
import sys
from types import ModuleType

import numpy as np
import torch

from benchmarks.metrics.scores import Scores

MIN_SAMPLES = 16_000
"""Less than a second is too short to rate a voice."""


class DistillMos:
    """The loaded network. Raises ImportError if distillmos or xls-r-sqa is missing."""

    def __init__(self) -> None:
        stands_in = "torchaudio" not in sys.modules
        if stands_in:
            sys.modules["torchaudio"] = ModuleType("torchaudio")
        try:
            from distillmos import ConvTransformerSQAModel
        finally:
            if stands_in:
                del sys.modules["torchaudio"]
        with contextlib.redirect_stdout(io.StringIO()):  # it prints the path of the weights
            self._model = ConvTransformerSQAModel().eval()

    @torch.no_grad()
    def rate(self, audio: np.ndarray) -> Scores:
        """(T,) at 16 kHz -> `distillmos`; empty for less than a second."""
        if len(audio) < MIN_SAMPLES:
            return {}
        return {"distillmos": float(self._model(torch.from_numpy(audio.astype(np.float32))[None]))}
