"""Models that hold only packed weights: int8 from a cache, and float32 in a server."""

import gc
import os
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from neucodec_streaming import ConfigError, int8_model, load_codec
from neucodec_streaming.codec import ASSETS, Codec
from neucodec_streaming.kernels import native
from neucodec_streaming.kernels.packed import ChannelsLastConv, PackedLinear
from tests.streaming.models import codec_of, recording


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache is empty; models of any size are cached."""
    native.operations(torch.zeros(1))  # compiled in the usual cache
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(int8_model, "SMALL_MODEL_BYTES", 0)
    return Path(shutil.copytree(ASSETS / "nano", tmp_path / "model"))


def cached(model: Path) -> Path:
    (file,) = (model.parent / "cache" / "neucodec-streaming").iterdir()
    return file


def load_counted(model: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Codec, int]:
    """Counts how often the original weights are read."""
    reads = []
    with monkeypatch.context() as patch:
        load = int8_model.load_model
        patch.setattr(int8_model, "load_model", lambda *args: reads.append(args) or load(*args))
        return load_codec(model, dtype="int8"), len(reads)


def test_a_second_start_reads_the_cached_weights_and_computes_the_same_bits(model, monkeypatch):
    pcm = recording(8000)
    first, reads = load_counted(model, monkeypatch)
    second, reads_again = load_counted(model, monkeypatch)
    assert (reads, reads_again) == (1, 0)
    assert first.fingerprint == second.fingerprint
    tokens = first.encode(pcm)
    np.testing.assert_array_equal(tokens, codec_of("nano-int8").encode(pcm))
    np.testing.assert_array_equal(tokens, second.encode(pcm))
    np.testing.assert_array_equal(first.decode(tokens), second.decode(tokens))


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_cache_is_rebuilt(model, monkeypatch, damage):
    fingerprint = load_codec(model, dtype="int8").fingerprint
    file = cached(model)
    whole = file.read_bytes()
    middle = len(whole) // 2
    changed = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    file.write_bytes({"cut": whole[:middle], "changed": changed, "empty": b""}[damage])
    again, reads = load_counted(model, monkeypatch)
    assert reads == 1 and again.fingerprint == fingerprint
    assert cached(model).read_bytes() == whole


def test_a_changed_model_is_packed_again(model, monkeypatch):
    load_codec(model, dtype="int8")
    weights = model / "model.safetensors"
    os.utime(weights, ns=(0, weights.stat().st_mtime_ns + 1))
    assert load_counted(model, monkeypatch)[1] == 1


def test_an_unwritable_cache_costs_only_time(model, monkeypatch):
    (model.parent / "cache").write_text("a file where the folder should be")
    assert load_counted(model, monkeypatch)[0].fingerprint == codec_of("nano-int8").fingerprint


def test_a_packed_codec_keeps_each_weight_once_and_codes_as_before():
    pcm, exact, packed = recording(8000), codec_of("nano"), load_codec("nano")
    before = packed.decoder_stream()
    packed.pack()
    assert packed.fingerprint == exact.fingerprint
    for layer in packed.model.modules():
        assert not isinstance(layer, PackedLinear) or layer.layers is None
        assert not isinstance(layer, ChannelsLastConv) or not layer.is_big or layer.conv is None
    tokens = exact.encode(pcm)
    np.testing.assert_array_equal(packed.encode(pcm), tokens)
    audio, expected = packed.decode(tokens), exact.decode(tokens)
    assert np.abs(audio - expected).max() <= 1e-4 * np.abs(expected).max()
    streamed = [np.concatenate([stream.feed(tokens), stream.flush()]) for stream in (before, packed.decoder_stream())]
    np.testing.assert_array_equal(*streamed)
    with pytest.raises(ConfigError, match="weights are packed for cpu, not for meta"):
        packed.to("meta")


def test_packing_frees_the_original_weights_of_linear_layers():
    codec = load_codec("nano", threads=1)
    weights = [weakref.ref(layer.weight) for layer in codec.model.modules() if isinstance(layer, nn.Linear)]
    codec.pack()
    gc.collect()
    assert len(weights) > 20 and not any(weight() is not None for weight in weights)
