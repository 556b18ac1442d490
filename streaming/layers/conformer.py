"""One w2v-BERT conformer layer, stepped: feed-forward, attention, causal convolution, feed-forward."""

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from neucodec_streaming.config import StreamConfig
from neucodec_streaming.layers.attention import Ring, RingView, StreamingRelativeAttention
from neucodec_streaming.layers.conv import StreamingConv


@dataclass
class ConformerState:
    """The ring of the attention and the past of the depthwise convolution."""

    ring: Ring
    past: Tensor


class StreamingConformer:
    """A `Wav2Vec2BertEncoderLayer` that remembers the context of `config`."""

    def __init__(self, layer: Any, config: StreamConfig) -> None:
        self.layer = layer
        self.attention = StreamingRelativeAttention(layer.self_attn, config)
        self.depthwise = StreamingConv(layer.conv_module.depthwise_conv, causal=True)

    def new_state(self, slots: int) -> ConformerState:
        return ConformerState(self.attention.new_state(slots), self.depthwise.new_state(slots))

    def step(self, x: Tensor, state: ConformerState, view: RingView) -> Tensor:
        """x (B, F, D) -> (B, F, D)."""
        layer = self.layer
        x = x + 0.5 * _feed_forward(layer.ffn1, layer.ffn1_layer_norm(x))
        x = x + self.attention.step(layer.self_attn_layer_norm(x), state.ring, view)
        x = x + self._convolve(x, state, view)
        x = x + 0.5 * _feed_forward(layer.ffn2, layer.ffn2_layer_norm(x))
        return layer.final_layer_norm(x)

    def _convolve(self, x: Tensor, state: ConformerState, view: RingView) -> Tensor:
        """x (B, F, D) -> (B, F, D)."""
        module = self.layer.conv_module
        x = F.glu(module.pointwise_conv1(module.layer_norm(x)))
        x = module.depthwise_layer_norm(self.depthwise.step(x, state.past, view.plan))
        return module.pointwise_conv2(module.activation(x))


def _feed_forward(module: Any, x: Tensor) -> Tensor:
    """A `Wav2Vec2BertFeedForward`: x (B, F, D) -> (B, F, D)."""
    return module.output_dense(module.intermediate_dense.activated(x, module.intermediate_act_fn))
