"""DistilMOS: how good listeners would find the quality of audio, on its own, from 1 to 5. No original is needed.

The network is Microsoft's (Stahl and Gamper, arXiv 2502.05356), as the package `distillmos` carries it. It was
distilled from a large self-supervised model, so it hears other faults than DNSMOS does. The package imports torchaudio
to read files, which is not needed here: an empty module stands in for it while the package is imported.
"""

import contextlib
import io
import sys
from types import ModuleType

import numpy as np
import torch

from benchmarks.metrics.scores import Scores

MIN_SAMPLES = 16_000
"""Less than a second says little of a voice."""


class DistillMos:
    """The network in memory. Raises ImportError where distillmos or xls-r-sqa are missing."""

    def __init__(self) -> None:
        stands_in = "torchaudio" not in sys.modules
        if stands_in:
            sys.modules["torchaudio"] = ModuleType("torchaudio")
        try:
            from distillmos import ConvTransformerSQAModel
        finally:
            if stands_in:
                del sys.modules["torchaudio"]
        with contextlib.redirect_stdout(io.StringIO()):  # it says where the weights are
            self._model = ConvTransformerSQAModel().eval()

    @torch.no_grad()
    def rate(self, audio: np.ndarray) -> Scores:
        """(T,) at 16 kHz -> `distillmos`; empty for less than a second."""
        if len(audio) < MIN_SAMPLES:
            return {}
        return {"distillmos": float(self._model(torch.from_numpy(audio.astype(np.float32))[None]))}
