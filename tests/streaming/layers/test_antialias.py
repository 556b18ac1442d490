"""The stepped anti-aliased activation equals upstream's, edges included."""

import pytest
import torch
from transformers.models.neucodec.modeling_neucodec import NeuCodecAntiAliasedActivation1d, NeuCodecSnakeBeta

from neucodec_streaming.layers.antialias import StreamingActivation
from tests.streaming.layers.stepping import in_chunks, random_chunks

pytestmark = pytest.mark.usefixtures("operations")


def activation(channels: int) -> NeuCodecAntiAliasedActivation1d:
    module = NeuCodecAntiAliasedActivation1d(activation=NeuCodecSnakeBeta(channels))
    module.act.alpha.data.normal_()
    module.act.beta.data.normal_()
    return module


@pytest.mark.parametrize("unit", [1, 2, 5, 16])
@pytest.mark.parametrize("seed", [0, 1, 2])
@torch.inference_mode()
def test_any_partition_equals_the_whole(unit: int, seed: int) -> None:
    torch.manual_seed(seed)
    module = activation(3)
    x = torch.randn(1, 23 * unit, 3)
    layer = StreamingActivation(module, unit)
    past = layer.new_state(1)
    y = in_chunks(lambda part, plan: layer.step(part, past, plan), x, random_chunks(23, seed), unit, last=23)
    torch.testing.assert_close(y, module(x.mT).mT, atol=1e-5, rtol=1e-5)
