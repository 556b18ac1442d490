"""The models that the laws are proved on, and helpers that cut input and step many slots."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from safetensors.torch import load_file

from neucodec_streaming import StreamConfig
from neucodec_streaming.codec import Codec, load_codec
from neucodec_streaming.stepper import Stepper
from neucodec_streaming.windows import DecoderWindower, EncoderWindower, Windower
from tests.conftest import DEVICE, ROOT

GOLDEN = ROOT / "tests" / "data" / "neucodec-mini"
FLOAT_MODELS = ("golden", "nano")
MODELS = (*FLOAT_MODELS, "nano-int8") if DEVICE == "cpu" else FLOAT_MODELS
SOFT = "golden-soft"
"""The golden model on the software CUDA device (tests.soft_cuda)."""
ALL_MODELS = (*MODELS, SOFT) if DEVICE == "cpu" else MODELS
DTYPES = {"encode": np.float32, "decode": np.int64}


@cache
def codec_of(model: str) -> Codec:
    torch.set_num_threads(1)
    name, _, kind = model.partition("-")
    device = "cuda" if model == SOFT else DEVICE
    return load_codec(GOLDEN if name == "golden" else name, device, dtype=kind if kind == "int8" else "float32")


@cache
def vectors() -> dict[str, torch.Tensor]:
    """Output of the original implementation with the golden model."""
    return load_file(GOLDEN / "vectors.safetensors")


def recording(samples: int = 32_137) -> np.ndarray:
    """Float32 mono at 16 kHz from the golden vectors."""
    return vectors()["long.wav"][0, 0, :samples].numpy()


def random_cuts(x: np.ndarray, seed: int, sizes: tuple[int, ...]) -> Iterator[np.ndarray]:
    """The lengths are drawn from `sizes`, some may be 0."""
    rng = np.random.default_rng(seed)
    start = 0
    while start < len(x):
        size = int(rng.choice(sizes))
        yield x[start : start + size]
        start += size


def whole(frames: int) -> StreamConfig:
    """One chunk for all, without priors: the condition of law 2."""
    return StreamConfig(chunk_frames=frames + 1, lookahead_frames=0, context_frames=0, prior_weight=0)


class StepBatch:
    """Rows of equal size over a stepper, each with a lane and a slot; rows without input point to the scratch slot."""

    def __init__(self, stepper: Stepper, rows: int) -> None:
        kind = EncoderWindower if stepper.kind == "encode" else DecoderWindower
        self.stepper = stepper
        self.lanes: list[Windower] = [kind(stepper.config) for _ in range(rows)]
        self.state = stepper.new_state(rows + 1)

    def step(self, last: tuple[int, ...] = ()) -> list[np.ndarray]:
        """Rows in `last` end; others advance if they have a window."""
        windows = [windower.take_last() if row in last else windower.take() for row, windower in enumerate(self.lanes)]
        x = np.zeros((len(windows), *self.stepper.window_shape), DTYPES[self.stepper.kind])
        slots = torch.full((len(windows),), len(windows))
        valid, commit = torch.zeros(2, len(windows), dtype=torch.int64)
        device = self.stepper.device
        for row, window in enumerate(windows):
            if window is not None:
                x[row], slots[row], valid[row], commit[row] = window.x, row, window.valid, window.commit
        plan = (part.to(device) for part in (slots, valid, commit))
        y = self.stepper.step(torch.from_numpy(x).to(device), self.state, *plan).cpu().numpy()
        for row in last:
            self.lanes[row].reset()
            self.stepper.reset(self.state, row)
        none = np.zeros(0, np.float32)
        return [
            none if window is None else windower.output(window, y[row])
            for row, (windower, window) in enumerate(zip(self.lanes, windows, strict=True))
        ]

    def run(self, row: int) -> np.ndarray:
        """Includes the row's ending; the other rows keep running."""
        parts = []
        while self.lanes[row].has_window:
            parts.append(self.step()[row])
        return np.concatenate([*parts, self.step(last=(row,))[row]])
