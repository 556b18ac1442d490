"""The fast activation equals the original one: output and all gradients."""

import pytest
import torch
from transformers.models.neucodec.modeling_neucodec import NeuCodecAntiAliasedActivation1d, NeuCodecSnakeBeta

from training.antialias import FastActivation, compiler, replace_activations

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler is installed")


def activation(channels: int) -> NeuCodecAntiAliasedActivation1d:
    torch.manual_seed(channels)
    module = NeuCodecAntiAliasedActivation1d(activation=NeuCodecSnakeBeta(channels))
    with torch.no_grad():
        module.act.alpha.normal_(std=0.5)
        module.act.beta.normal_(std=0.5)
    return module


@pytest.mark.parametrize("samples", [1, 5, 16, 47, 320])
def test_output_and_gradients_equal_the_original(samples: int) -> None:
    original = activation(channels=3)
    fast = FastActivation(original)
    results = []
    for module in (original, fast):
        original.zero_grad()
        x = torch.randn(2, 3, samples, generator=torch.Generator().manual_seed(samples), requires_grad=True)
        out = module(x)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out).exp()).sum().backward()
        results.append((out.detach(), x.grad, original.act.alpha.grad.clone(), original.act.beta.grad.clone()))
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, atol=2e-5, rtol=2e-5)


def test_replacing_keeps_the_names_of_parameters() -> None:
    module = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), activation(channels=2))
    names = list(module.state_dict())
    replace_activations(module)
    assert isinstance(module[1], FastActivation)
    assert list(module.state_dict()) == names
