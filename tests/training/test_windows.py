"""Coding a crop in windows equals a stream."""

from pathlib import Path

import numpy as np
import pytest
import torch

from neucodec_streaming import StreamConfig, load_codec
from neucodec_streaming.codec import Codec
from training.windows import StreamPriors, Windows, decode, no_priors, read_priors, semantic

FRAMES = 37
PRIORS = read_priors(Path("streaming/assets/nano/stream.json"))


@pytest.fixture(scope="module")
def codec() -> Codec:
    return load_codec("nano")


@pytest.mark.parametrize(("chunk", "lookahead", "priors"), [(5, 5, no_priors()), (2, 3, PRIORS), (7, 1, no_priors())])
@torch.no_grad()
def test_decoding_in_windows_equals_a_stream(codec: Codec, chunk: int, lookahead: int, priors: StreamPriors) -> None:
    tokens = np.random.default_rng(1).integers(0, 65_536, FRAMES).astype(np.uint16)
    stream = codec.decoder_stream(StreamConfig(chunk, lookahead, 50 * chunk, prior_weight=priors.frames))
    expected = np.concatenate([stream.feed(tokens), stream.flush()])
    latents = codec.model.quantizer.from_codes(torch.from_numpy(tokens.astype(np.int64))[None, :, None])
    got = decode(codec.model.acoustic_decoder, latents, Windows(chunk, lookahead, FRAMES), priors)
    np.testing.assert_allclose(got[0].numpy(), expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize(("chunk", "lookahead", "priors"), [(5, 5, no_priors()), (2, 3, PRIORS)])
@torch.no_grad()
def test_the_semantic_branch_in_windows_equals_a_stream(chunk: int, lookahead: int, priors: StreamPriors) -> None:
    codec = load_codec("nano")
    codec.model.fc_encoder.weight[:, -codec.model.config.hidden_size :] = 0.0  # tokens of the semantic branch alone
    time = np.arange((FRAMES + 1) * 320) / 16_000
    pcm = (0.1 * np.sin(900 * time) * np.sin(20 * time) ** 2).astype(np.float32)
    pcm += np.random.default_rng(2).normal(0, 0.01, len(pcm)).astype(np.float32)
    stream = codec.encoder_stream(StreamConfig(chunk, lookahead, 50 * chunk, prior_weight=priors.frames))
    expected = np.concatenate([stream.feed(pcm), stream.flush()])[: FRAMES - chunk - lookahead]
    said = semantic(codec.model, torch.from_numpy(pcm)[None], Windows(chunk, lookahead, FRAMES), priors)
    acoustic = torch.zeros(1, FRAMES, codec.model.config.hidden_size)
    latents = codec.model.fc_encoder(torch.cat([said.transpose(1, 2), acoustic], dim=2))
    _, got = codec.model.quantizer(latents)
    assert (got[0, : len(expected), 0].numpy() == expected).mean() > 0.95  # a value may lie on a rounding boundary
