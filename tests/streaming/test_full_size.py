"""A checkpoint of the real size loads through the same code and obeys the same laws. Random weights, no download."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import NeuCodecConfig, NeuCodecModel

from neucodec_streaming import StreamConfig, load_codec
from tests.streaming.models import recording, whole


@pytest.mark.slow
def test_a_model_of_the_real_size_loads_and_one_chunk_equals_offline(tmp_path: Path) -> None:
    try:
        torch.manual_seed(0)
        NeuCodecModel(NeuCodecConfig()).to(torch.bfloat16).save_pretrained(tmp_path)
        codec = load_codec(tmp_path)
        pcm = recording(8000)
        encoder, decoder = codec.encoder_stream(whole(25)), codec.decoder_stream(whole(25))
        tokens = np.concatenate([encoder.feed(pcm), encoder.flush()])
        np.testing.assert_array_equal(tokens, codec.encode(pcm))
        audio, expected = np.concatenate([decoder.feed(tokens), decoder.flush()]), codec.decode(tokens)
        assert np.abs(audio - expected).max() <= 1e-4 * np.abs(expected).max()
        assert codec.default_config == StreamConfig(5, 5, 250, prior_weight=0)
        stream = codec.decoder_stream()
        assert len(stream.feed(tokens)) + len(stream.flush()) == 25 * 480
    finally:
        shutil.rmtree(tmp_path)
