"""The decoder as commonly run on CPUs: exported to ONNX and run by onnxruntime, in float32 or quantised to int8."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neucodec_streaming.config import CODEBOOK_SIZE

PARTS = 4


class ExportedDecoder(nn.Module):
    """codes (B, 1, F) -> audio (B, 1, F * hop), with the inverse transform as a real matrix product."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        head = model.acoustic_decoder.head
        self.linear, self.hop, self.padding = head.linear, int(head.hop_length), int(head.padding)
        bins = torch.eye(head.n_fft // 2 + 1, dtype=torch.complex64)
        window = head.window.float()
        self.register_buffer("of_real", torch.fft.irfft(bins, head.n_fft) * window)
        self.register_buffer("of_imaginary", torch.fft.irfft(1j * bins, head.n_fft) * window)
        self.register_buffer("energy", window.square().view(PARTS, 1, self.hop))
        head.forward = self._synthesis

    def forward(self, codes: Tensor) -> Tensor:
        return self.model.decode(codes).audio_values

    def _synthesis(self, x: Tensor) -> Tensor:
        """x (B, F, D) -> audio (B, 1, F * hop)."""
        magnitude, phase = self.linear(x).chunk(2, dim=-1)
        magnitude = magnitude.exp().clamp(max=1e2)
        frames = (magnitude * phase.cos()) @ self.of_real + (magnitude * phase.sin()) @ self.of_imaginary
        audio = self._overlap_add(frames.unflatten(2, (PARTS, self.hop)).unbind(2))
        energy = self._overlap_add([part.expand(1, x.shape[1], -1) for part in self.energy])
        return (audio / energy.clamp(min=1e-11))[:, None, self.padding : -self.padding]

    def _overlap_add(self, parts: Any) -> Tensor:
        """Adds the parts (B, F, hop) of frames, each shifted by a hop: (B, (F + 3) * hop)."""
        shifted = [F.pad(part, (0, 0, place, PARTS - 1 - place)) for place, part in enumerate(parts)]
        return torch.stack(shifted).sum(0).flatten(1)


def export(model: Any, frames: int, folder: Path) -> dict[str, Path]:
    """Exports the decoder for windows of `frames`, in float32 and with int8 weights and dynamic activations.

    Returns the files by name; existing ones are kept.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    files = {name: folder / f"{name}.onnx" for name in ("float32", "int8")}
    if all(file.exists() for file in files.values()):
        return files
    codes = torch.randint(CODEBOOK_SIZE, (2, 1, frames))
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.onnx.export(
        ExportedDecoder(model).eval(), (codes,), dynamo=True, dynamic_shapes=({0: batch},), verbose=False
    )
    exported.save(files["float32"], external_data=False)
    quantize_dynamic(files["float32"], files["int8"], weight_type=QuantType.QInt8)
    return files


def runner(file: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function codes int64 (B, 1, F) -> audio float32 (B, 1, F * hop)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (name,) = (given.name for given in session.get_inputs())
    return lambda codes: session.run(None, {name: codes})[0]
