"""Law 2 for int8: one whole chunk equals the offline model with fake-quantised weights and activations, and with the
decoder's attention in bfloat16.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from neucodec_streaming import ConfigError, load_codec
from neucodec_streaming.kernels.int8 import fake_quantised, is_int8
from neucodec_streaming.kernels.packed import is_small
from tests.streaming.models import codec_of, recording


def quantised_rows(x: torch.Tensor) -> torch.Tensor:
    return fake_quantised(x.reshape(-1, x.shape[-1])).reshape(x.shape)


def fake_conv(conv: nn.Conv1d, x: torch.Tensor) -> torch.Tensor:
    """Convolution of (B, C, T) with each row of channels quantised separately."""
    flat = fake_quantised(conv.weight.transpose(1, 2).flatten(1))
    weight = flat.unflatten(1, (conv.kernel_size[0], -1)).transpose(1, 2)
    return F.conv1d(quantised_rows(x.mT).mT, weight, conv.bias, conv.stride, conv.padding, conv.dilation)


def rounded_attention(module, query, key, value, attention_mask, scaling, **_):
    """The decoder's attention, with queries, keys, values and weights in bfloat16: (B, H, T, D) -> (B, T, H, D)."""
    query, key, value = (x.bfloat16().float() for x in (query, key, value))
    weights = (query @ key.mT * scaling).softmax(-1).bfloat16().float()
    return (weights @ value).transpose(1, 2), weights


def make_fake(model: nn.Module) -> None:
    ALL_ATTENTION_FUNCTIONS["rounded"] = rounded_attention
    model.config._attn_implementation = "rounded"
    for name, layer in model.named_modules():
        if not is_int8(name):
            continue
        if type(layer) is nn.Linear:
            layer.weight.data = fake_quantised(layer.weight.data)
            layer.register_forward_pre_hook(lambda _, args: (quantised_rows(args[0]),))
        elif type(layer) is nn.Conv1d and not is_small(layer):
            layer.forward = lambda x, conv=layer: fake_conv(conv, x)


def make_inexact(model: nn.Module) -> None:
    """Changes biases and scales by 1e-5, so that other activations round up or down."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data *= 1 + 1e-5 * torch.randn(parameter.shape, generator=generator)


def test_one_chunk_of_a_whole_recording_equals_the_fake_quantised_model():
    quantised, reference, inexact = codec_of("nano-int8"), load_codec("nano"), load_codec("nano")
    for codec in (reference, inexact):
        make_fake(codec.model)
    make_inexact(inexact.model)
    noise, rounding = [], []
    for samples in (8000, 16_000, 32_000, 48_000):
        pcm = recording(samples)
        tokens = reference.encode(pcm)
        assert (quantised.encode(pcm) == tokens).mean() >= 0.8, "a value that rounds the other way may change a token"
        expected = reference.decode(tokens)
        for codec, distances in ((quantised, noise), (inexact, rounding)):
            distances.append(np.linalg.norm(codec.decode(tokens) - expected) / np.linalg.norm(expected))
    assert np.mean(noise) <= 1.2 * np.mean(rounding), "the difference is more than rounding"


def test_int8_audio_is_close_to_float32_and_has_another_fingerprint():
    pcm = recording()
    quantised, exact = codec_of("nano-int8"), codec_of("nano")
    tokens = exact.encode(pcm)
    audio, expected = quantised.decode(tokens), exact.decode(tokens)
    assert np.linalg.norm(audio - expected) <= 0.02 * np.linalg.norm(expected)
    assert quantised.fingerprint != exact.fingerprint


def test_int8_is_refused_where_unsupported_and_an_unknown_dtype_is_named():
    with pytest.raises(ConfigError, match="int8 is computed on a CPU"):
        load_codec("nano", device="cuda", dtype="int8")
    with pytest.raises(ConfigError, match="'int9' is unknown"):
        load_codec("nano", dtype="int9")
