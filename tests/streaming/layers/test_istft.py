"""Overlap-add with a carried tail: chunks of audio join to the output of the head for the whole, at every lookahead."""

import numpy as np
import pytest
import torch
from transformers import NeuCodecConfig
from transformers.models.neucodec.modeling_neucodec import NeuCodecISTFTHead

from neucodec_streaming.config import StreamConfig
from neucodec_streaming.layers.istft import StreamingISTFT
from neucodec_streaming.layers.step import StepPlan
from neucodec_streaming.windows import DecoderWindower


@pytest.mark.parametrize("lookahead", [0, 1, 2, 5])
@pytest.mark.parametrize("chunk", [1, 2, 5])
@torch.inference_mode()
def test_chunks_join_without_a_seam(chunk: int, lookahead: int) -> None:
    """The head is local, so with exact overlap-add only rounding may differ from the whole."""
    torch.manual_seed(0)
    head = NeuCodecISTFTHead(NeuCodecConfig(hidden_size=16))
    x = torch.randn(1, 17, 16)
    expected = head(x)[0, 0].numpy()
    config = StreamConfig(chunk, lookahead)
    layer = StreamingISTFT(head, config)
    tail = layer.new_state(1)
    windower = DecoderWindower(config)  # its tokens are the frame numbers
    windower.push(np.arange(17, dtype=np.uint16))
    parts, position, window = [], 0, windower.take()
    while window is not None:
        plan = StepPlan(*(torch.tensor([count]) for count in (0, window.valid, window.commit, position)))
        parts.append(windower.output(window, layer.step(x[:, torch.from_numpy(window.x)], tail, plan)[0].numpy()))
        position += window.commit
        window = windower.take()
        if window is None:
            window = windower.take_last()
            windower.reset()
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=2e-6)
