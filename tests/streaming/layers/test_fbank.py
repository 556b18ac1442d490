"""The mel features equal those of Kaldi, which the original model was trained on."""

import kaldi_native_fbank
import numpy as np
import pytest
import torch
from transformers import SeamlessM4TFeatureExtractor

from neucodec_streaming.layers.fbank import log_mel


def noise(samples: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    loudness = np.abs(np.sin(np.arange(samples) / 3000.0))
    return (0.1 * loudness * rng.standard_normal(samples)).astype(np.float32)


@pytest.mark.parametrize("samples", [400, 559, 560, 4801, 32_000])
def test_mel_features_equal_kaldi(samples: int) -> None:
    pcm = noise(samples, seed=samples)
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = 80
    options.mel_opts.high_freq = 0
    bank = kaldi_native_fbank.OnlineFbank(options)
    bank.accept_waveform(16_000, (pcm * 2**15).tolist())
    expected = np.stack([bank.get_frame(i) for i in range(bank.num_frames_ready)])
    torch.testing.assert_close(log_mel(torch.from_numpy(pcm)[None])[0].numpy(), expected, atol=1e-4, rtol=1e-4)


def test_mel_features_equal_the_feature_extractor_of_the_semantic_encoder() -> None:
    pcm = noise(16_000, seed=1)
    extractor = SeamlessM4TFeatureExtractor()
    expected = extractor._extract_fbank_features(pcm)
    torch.testing.assert_close(log_mel(torch.from_numpy(pcm)[None])[0].numpy(), expected, atol=1e-4, rtol=1e-4)


def test_rows_of_a_batch_are_independent() -> None:
    pcm = torch.from_numpy(np.stack([noise(4000, 2), noise(4000, 3)]))
    torch.testing.assert_close(log_mel(pcm)[1:], log_mel(pcm[1:]))


def test_less_than_one_frame_gives_no_features() -> None:
    assert log_mel(torch.zeros(3, 399)).shape == (3, 0, 80)
