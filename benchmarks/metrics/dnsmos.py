"""DNSMOS P.835: a prediction of how natural listeners would find audio, from 1 to 5, without a reference.

Uses Microsoft's network (Reddy et al., arXiv 2110.01763) from the package `speechmos`. The package itself is not
imported: that would need librosa and requests, for files and for a second network. Windows are cut as in the package.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks.metrics.scores import Scores
from neucodec_streaming.config import INPUT_RATE

WINDOW_SAMPLES = int(9.01 * INPUT_RATE)
SCALES = {
    "dnsmos_sig": (-0.08397278, 1.22083953, 0.0052439),
    "dnsmos_bak": (-0.13166888, 1.60915514, -0.39604546),
    "dnsmos": (-0.06766283, 1.11546468, 0.04602535),
}
"""The published polynomial that maps each output (speech, background, overall) to the listeners' scale."""


class Dnsmos:
    """The loaded network, on one thread. Raises ImportError if onnxruntime or speechmos is missing."""

    def __init__(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(_model_file(), options, providers=["CPUExecutionProvider"])

    def rate(self, audio: np.ndarray) -> Scores:
        """(T,) at 16 kHz, T > 0 -> overall `dnsmos`, `dnsmos_sig` and `dnsmos_bak`, means over windows."""
        rated = np.concatenate([self._session.run(None, {"input_1": window[None]})[0] for window in windows(audio)])
        return {
            name: float(np.polyval(scale, outputs).mean())
            for (name, scale), outputs in zip(SCALES.items(), rated.T, strict=True)
        }


def windows(audio: np.ndarray) -> list[np.ndarray]:
    """Returns windows of 9.01 s, one second apart, as the package cuts them; at least one.

    Audio that is too short is doubled until it is long enough.
    """
    audio = np.clip(audio, -1, 1).astype(np.float32)
    while len(audio) < WINDOW_SAMPLES:
        audio = np.concatenate([audio, audio])
    count = max(1, len(audio) // INPUT_RATE - WINDOW_SAMPLES // INPUT_RATE)
    return [audio[at : at + WINDOW_SAMPLES] for at in range(0, count * INPUT_RATE, INPUT_RATE)]


def _model_file() -> str:
    package = find_spec("speechmos")
    if package is None or not package.submodule_search_locations:
        raise ImportError("speechmos, which carries the network of DNSMOS, is not installed")
    return str(Path(package.submodule_search_locations[0]) / "dnsmos_models" / "sig_bak_ovr.onnx")
