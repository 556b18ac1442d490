"""Shapes, dtypes and devices of every step are consistent on CUDA, in every dtype: proved on tensors without values."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import NeuCodecConfig, NeuCodecModel

from neucodec_streaming import StreamConfig
from neucodec_streaming.codec import Codec
from neucodec_streaming.kernels import native
from neucodec_streaming.layers import fbank
from neucodec_streaming.priors import read_priors
from tests.soft_cuda.install import GUARD
from tests.streaming.models import GOLDEN

ROWS = 3
CUTS = [(5, 5, 250), (1, 1, 0)]


@pytest.fixture
def fake(compiled: None) -> Iterator[None]:
    """Constants are cached per device, and those of one mode are invalid in another."""
    torch.ops.load_library(native.library([GUARD]))
    for constant in (fbank.povey_window, fbank.mel_matrix):
        constant.cache_clear()
    yield
    for constant in (fbank.povey_window, fbank.mel_matrix):
        constant.cache_clear()


def fake_codec(folder: Path, dtype: torch.dtype) -> Codec:
    torch.set_default_dtype(dtype)
    try:
        with torch.device("cuda:0"):
            model = NeuCodecModel(NeuCodecConfig.from_pretrained(folder)).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(torch.float32)
    codec = Codec("fake", model, read_priors(folder / "stream.json"))
    codec.fingerprint = "weights without values have none"
    return codec


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_every_step_fits_in_every_dtype(dtype: torch.dtype, fake: None) -> None:
    with FakeTensorMode():
        codec = fake_codec(GOLDEN, dtype)
        for cut in CUTS:
            config = StreamConfig(*cut)
            frames = config.window_frames
            for stepper, wanted in (
                (codec.encoder(config), ((ROWS, frames), torch.int64)),
                (codec.decoder(config), ((ROWS, (frames + config.synthesis_lag_frames) * 480), torch.float32)),
            ):
                state = stepper.new_state(ROWS + 1)
                kind = torch.float32 if stepper.kind == "encode" else torch.int64
                x = torch.zeros(ROWS, *stepper.window_shape, dtype=kind, device="cuda:0")
                rows = torch.zeros(3, ROWS, dtype=torch.int64, device="cuda:0")
                for steady in (False, True):
                    y = stepper.step(x, state, *rows, steady=steady)
                    assert ((tuple(y.shape), y.dtype), y.device.type) == (wanted, "cuda")
                stepper.reset(state, 1)
