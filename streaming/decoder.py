"""The decoder of a `NeuCodecModel`, stepped: token windows of many slots in, audio out."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neucodec_streaming.config import StreamConfig
from neucodec_streaming.layers.attention import Ring, RingView, StreamingAttention
from neucodec_streaming.layers.conv import StreamingConv
from neucodec_streaming.layers.istft import StreamingISTFT
from neucodec_streaming.layers.norm import Moments, PoolingWeights, RMSNorm, StreamingGroupNorm
from neucodec_streaming.layers.state import SlotState
from neucodec_streaming.layers.step import StepPlan
from neucodec_streaming.priors import Priors
from neucodec_streaming.stepper import Stepper


@dataclass
class ResNetState:
    """Statistics and past inputs of a block's two norms and convolutions."""

    norm1: Moments
    conv1: Tensor
    norm2: Moments
    conv2: Tensor


class ResNetBlock:
    """A `NeuCodecResNetBlock` with running GroupNorm statistics."""

    def __init__(self, block: Any, priors: tuple[Moments | None, Moments | None]) -> None:
        self.activation = block.activation1
        self.norm1 = StreamingGroupNorm(block.norm1, priors[0])
        self.norm2 = StreamingGroupNorm(block.norm2, priors[1])
        self.conv1, self.conv2 = StreamingConv(block.conv1), StreamingConv(block.conv2)

    def new_state(self, slots: int) -> ResNetState:
        return ResNetState(
            norm1=self.norm1.new_state(slots),
            conv1=self.conv1.new_state(slots),
            norm2=self.norm2.new_state(slots),
            conv2=self.conv2.new_state(slots),
        )

    def step(self, x: Tensor, state: ResNetState, weights: PoolingWeights) -> Tensor:
        """x (B, F, D) -> (B, F, D)."""
        plan = weights.plan
        y = self.conv1.step(self.activation(self.norm1.step(x, state.norm1, weights)), state.conv1, plan)
        return x + self.conv2.step(self.activation(self.norm2.step(y, state.norm2, weights)), state.conv2, plan)


@dataclass(kw_only=True)
class DecoderState(SlotState):
    """The decoder's state."""

    embed: Tensor
    prior_net: list[ResNetState]
    layers: list[Ring]
    post_net: list[ResNetState]
    tail: Tensor


class Decoder(Stepper):
    """`step`: int64 tokens (B, C + L) to float32 audio (B, (C + L + lag) * hop), starting `lag` hops before the window;
    a hop is 480 samples at 24 kHz.
    """

    kind = "decode"

    def __init__(self, model: Any, config: StreamConfig, priors: Priors, fingerprint: str) -> None:
        super().__init__(model, config, priors, fingerprint)
        self.network = network = model.acoustic_decoder
        self.output_hop = int(network.head.hop_length)
        count = 2 * (len(network.prior_net) + len(network.post_net))
        norms = iter(priors.group_norm_moments(config, self.device, count))
        self.embed = StreamingConv(network.embed)
        self.prior_net = [ResNetBlock(block, (next(norms), next(norms))) for block in network.prior_net]
        self.attention = [StreamingAttention(layer.self_attn, config) for layer in network.layers]
        self.layer_norms = [
            (RMSNorm(layer.input_layernorm), RMSNorm(layer.post_attention_layernorm)) for layer in network.layers
        ]
        self.post_net = [ResNetBlock(block, (next(norms), next(norms))) for block in network.post_net]
        self.istft = StreamingISTFT(network.head, config)

    @property
    def window_shape(self) -> tuple[int, ...]:
        return (self.config.window_frames,)

    def separate_state(self, slots: int) -> DecoderState:
        return DecoderState(
            position=torch.zeros(slots, dtype=torch.int64, device=self.device),
            frames_seen=torch.zeros(slots, 1, device=self.device),
            embed=self.embed.new_state(slots),
            prior_net=[block.new_state(slots) for block in self.prior_net],
            layers=[layer.new_state(slots) for layer in self.attention],
            post_net=[block.new_state(slots) for block in self.post_net],
            tail=self.istft.new_state(slots),
        )

    def compute(self, x: Tensor, state: DecoderState, plan: StepPlan) -> Tensor:
        """Tokens (B, C + L) -> audio (B, (C + L + lag) * hop)."""
        network = self.network
        x = network.fc(self.model.quantizer.from_codes(x[..., None]).to(self.dtype))
        x = self.embed.step(x, state.embed, plan)
        weights = PoolingWeights(plan, state.frames_seen, self.config.window_frames, self.prior_frames, self.cap_frames)
        for block, part in zip(self.prior_net, state.prior_net, strict=True):
            x = block.step(x, part, weights)
        x = self._transform(x, state.layers, plan)
        for block, part in zip(self.post_net, state.post_net, strict=True):
            x = block.step(x, part, weights)
        return self.istft.step(network.norm(x), state.tail, plan)

    def _transform(self, x: Tensor, rings: list[Ring], plan: StepPlan) -> Tensor:
        """x (B, F, D) -> (B, F, D)."""
        view = RingView(plan, self.config, x.dtype)
        layers = zip(self.network.layers, self.attention, self.layer_norms, rings, strict=True)
        for layer, attention, (before_attention, before_mlp), ring in layers:
            x = x + attention.step(before_attention(x), ring, view)
            x = x + layer.mlp.fc2(layer.mlp.fc1.activated(before_mlp(x), layer.mlp.activation_fn))
        return x
