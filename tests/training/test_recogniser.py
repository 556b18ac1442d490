"""The recogniser has Whisper's input and the weights of a CTranslate2 file, and its loss grows with noise."""

import struct

import numpy as np
import pytest
import torch
from scipy.signal import resample_poly
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from training import recogniser
from training.recogniser import hidden_states, log_mel, read_encoder, recogniser_loss

FULL_BAND = torch.tensor([12_000.0])


def arrays_of(encoder: WhisperEncoder) -> dict[str, torch.Tensor]:
    """The weights by the names that CTranslate2 gives them: keys, queries and values are one array."""
    weights = encoder.state_dict()
    arrays = {"position_encodings/encodings": weights["embed_positions.weight"]}
    norms = {"layer_norm": "layer_norm"}
    for n in range(len(encoder.layers)):
        attention = f"layers.{n}.self_attn"
        norms |= {
            f"layer_{n}/self_attention/layer_norm": f"layers.{n}.self_attn_layer_norm",
            f"layer_{n}/ffn/layer_norm": f"layers.{n}.final_layer_norm",
        }
        bias = weights[f"{attention}.q_proj.bias"]
        biases = bias, torch.zeros_like(bias), weights[f"{attention}.v_proj.bias"]
        arrays[f"layer_{n}/self_attention/linear_0/bias"] = torch.cat(biases)
        arrays[f"layer_{n}/self_attention/linear_0/weight"] = torch.cat(
            [weights[f"{attention}.{part}_proj.weight"] for part in "qkv"]
        )
        for kind in ("weight", "bias"):
            arrays[f"layer_{n}/self_attention/linear_1/{kind}"] = weights[f"{attention}.out_proj.{kind}"]
            for i in (0, 1):
                arrays[f"layer_{n}/ffn/linear_{i}/{kind}"] = weights[f"layers.{n}.fc{i + 1}.{kind}"]
    for conv in ("conv1", "conv2"):
        arrays |= {f"{conv}/{kind}": weights[f"{conv}.{kind}"] for kind in ("weight", "bias")}
    for there, here in norms.items():
        arrays |= {f"{there}/gamma": weights[f"{here}.weight"], f"{there}/beta": weights[f"{here}.bias"]}
    return arrays


def written(arrays: dict[str, torch.Tensor]) -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    parts = [struct.pack("<I", 6), text("WhisperSpec"), struct.pack("<II", 3, len(arrays) + 1)]
    parts += [text("decoder/num_heads"), struct.pack("<BBI", 0, 2, 2), struct.pack("<h", 6)]
    for name, value in arrays.items():
        array = value.numpy().astype(np.float32)
        shape = struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        parts += [text(f"encoder/{name}"), shape, struct.pack("<BI", 0, array.nbytes), array.tobytes()]
    return b"".join(parts)


@pytest.fixture(scope="module")
def encoder() -> WhisperEncoder:
    torch.manual_seed(0)
    config = WhisperConfig(encoder_layers=4, d_model=384, encoder_attention_heads=6, encoder_ffn_dim=1536)
    return WhisperEncoder(config).eval()


def test_the_input_equals_that_of_whisper() -> None:
    heard = np.random.default_rng(0).normal(0.0, 0.1, 16_000).astype(np.float32)
    expected = WhisperFeatureExtractor()(heard, sampling_rate=16_000, padding=False).input_features[0]
    target = torch.from_numpy(resample_poly(heard, 3, 2).astype(np.float32))[None]
    got, _ = log_mel(target, FULL_BAND)
    # Resampling changes the uppermost bands and the edges.
    assert got.shape[1:] == expected.shape
    assert np.abs(got[0, :76, 2:-2].numpy() - expected[:76, 2:-2]).max() < 0.01


def test_an_encoder_is_read_as_it_was_written(encoder: WhisperEncoder) -> None:
    read = read_encoder(written(arrays_of(encoder)))
    mel = torch.randn(2, 80, 3_000)
    expected = encoder(mel).last_hidden_state
    assert torch.allclose(hidden_states(read, mel, mixed=False)[-1], expected, atol=1e-4)
    assert not any(p.requires_grad for p in read.parameters())


def test_the_loss_is_zero_for_the_recording_and_grows_with_noise(
    encoder: WhisperEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recogniser, "recogniser", lambda device: encoder)
    target, noise = 0.1 * torch.randn(1, 24_000), 0.1 * torch.randn(1, 24_000)
    assert recogniser_loss(target, target, FULL_BAND) == 0.0
    little, much = (recogniser_loss(target + share * noise, target, FULL_BAND) for share in (0.1, 0.5))
    assert 0.0 < little < much


def test_sound_above_the_bandwidth_of_the_recording_is_ignored(
    encoder: WhisperEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recogniser, "recogniser", lambda device: encoder)
    times = torch.arange(24_000) / 24_000
    low, high = (torch.sin(2 * torch.pi * hz * times)[None] for hz in (440.0, 6_000.0))
    narrow = recogniser_loss(low + 0.01 * high, low, torch.tensor([4_000.0]))
    assert narrow < 0.1 * recogniser_loss(low + 0.01 * high, low, FULL_BAND)
