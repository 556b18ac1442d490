"""The training model equals the library's, and every part gets a gradient."""

import pytest
import torch
from transformers import NeuCodecModel

from training.losses import LossWeights, losses, total
from training.model import (
    QUANTISER_MEAN,
    QUANTISER_SPREAD,
    damaged,
    mel_input,
    nano_config,
    new_model,
    quantiser_input,
    reconstruct,
    take_weights,
)


@pytest.fixture(scope="module")
def heard() -> torch.Tensor:
    """Two crops of 20 frames and the hop after them."""
    generator = torch.Generator().manual_seed(0)
    envelope = torch.sin(torch.arange(21 * 320) / 900.0).abs()
    return 0.1 * envelope * torch.randn(2, 21 * 320, generator=generator)


@pytest.fixture(scope="module")
def model(heard: torch.Tensor) -> NeuCodecModel:
    torch.manual_seed(0)
    return new_model(heard).eval()


@torch.no_grad()
def test_the_training_model_equals_encode_and_decode_of_the_library(model: NeuCodecModel, heard: torch.Tensor) -> None:
    original = NeuCodecModel(nano_config()).eval()
    original.load_state_dict(model.state_dict())
    codes = original.encode(heard.unsqueeze(1), mel_input(heard)).audio_codes
    expected = original.decode(codes).audio_values.squeeze(1)
    torch.testing.assert_close(reconstruct(model, heard).audio, expected, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_the_initial_quantiser_uses_all_its_levels(model: NeuCodecModel, heard: torch.Tensor) -> None:
    projected = quantiser_input(model, heard).flatten(0, 1)
    torch.testing.assert_close(projected.mean(0), torch.full((8,), QUANTISER_MEAN), atol=1e-3, rtol=0)
    torch.testing.assert_close(projected.std(0), torch.full((8,), QUANTISER_SPREAD), atol=1e-3, rtol=0)


@pytest.mark.parametrize("mixed", [False, True])
def test_every_trained_parameter_gets_a_gradient(model: NeuCodecModel, heard: torch.Tensor, mixed: bool) -> None:
    model.zero_grad()
    result = reconstruct(model, heard, mixed)
    target = torch.zeros(2, 20 * 480)
    total(losses(result.audio, target, torch.full((2,), 8_000.0), result.projected), LossWeights()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert without in ([], ["semantic_encoder.masked_spec_embed"])


@torch.no_grad()
def test_an_enlarged_model_gives_the_same_output_before_training(heard: torch.Tensor) -> None:
    config, narrow = nano_config(3), nano_config(2)
    narrow.encoder_hidden_size //= 2
    small, large = NeuCodecModel(narrow).eval(), NeuCodecModel(config).eval()
    take_weights(large, small.state_dict())
    torch.testing.assert_close(quantiser_input(large, heard), quantiser_input(small, heard))
    codes = torch.randint(0, 65_536, (1, 1, 20))
    torch.testing.assert_close(large.decode(codes).audio_values, small.decode(codes).audio_values)
    with pytest.raises(RuntimeError, match="Unexpected"):
        take_weights(small, large.state_dict())


def test_the_nano_model_is_below_24_mb() -> None:
    parameters = sum(p.numel() for p in NeuCodecModel(nano_config()).parameters())
    assert parameters * 2 < 24e6  # bytes, as shipped in float16


def test_no_bit_flips_without_a_probability_and_every_level_stays_one_of_four() -> None:
    codes = (torch.randint(0, 4, (2, 500, 8)) - 2) / 2.0
    torch.testing.assert_close(damaged(codes, torch.tensor([0.0, 0.0])), codes)
    wrong = damaged(codes, torch.tensor([0.0, 0.1]))
    assert set(wrong.unique().tolist()) == {-1.0, -0.5, 0.0, 0.5}
    assert float((wrong[1] != codes[1]).float().mean()) == pytest.approx(0.19, abs=0.03)
