"""The encoder of a `NeuCodecModel`, stepped: PCM windows of many slots in, tokens out.

A window is chunk, lookahead and one more hop: the feature extractor pads a recording by at least one zero to whole
hops, so the acoustic branch always sees one hop more than there are tokens. In a steady step that last hop holds the
240 samples of the last mel frame, and zeros.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neucodec_streaming.config import INPUT_HOP, StreamConfig
from neucodec_streaming.layers.acoustic import BlockState, StreamingAcoustic
from neucodec_streaming.layers.attention import RingView
from neucodec_streaming.layers.conformer import ConformerState, StreamingConformer
from neucodec_streaming.layers.conv import StreamingConv
from neucodec_streaming.layers.mel import MEL_PER_FRAME, StreamingMel
from neucodec_streaming.layers.norm import Moments, PoolingWeights
from neucodec_streaming.layers.state import SlotState
from neucodec_streaming.layers.step import StepPlan
from neucodec_streaming.priors import Priors
from neucodec_streaming.stepper import Stepper


@dataclass(kw_only=True)
class EncoderState(SlotState):
    """The encoder's state."""

    mel: Moments
    conformer: list[ConformerState]
    adapter: list[Tensor]
    acoustic: list[BlockState]


class Encoder(Stepper):
    """`step`: float32 PCM (B, (C + L + 1) * 320) to int64 tokens (B, C + L); a row's first `commit` are valid."""

    kind = "encode"
    output_hop = 1

    def __init__(self, model: Any, config: StreamConfig, priors: Priors, fingerprint: str) -> None:
        super().__init__(model, config, priors, fingerprint)
        semantic = model.semantic_encoder
        self.mel = StreamingMel(priors.mel_moments(config, self.device), self.device)
        self.projection = semantic.feature_projection
        self.conformer = [StreamingConformer(layer, config) for layer in semantic.encoder.layers]
        adapter = model.semantic_adapter
        self.adapter = [StreamingConv(conv) for conv in (adapter.conv1, adapter.conv2, adapter.conv3, adapter.conv4)]
        self.acoustic = StreamingAcoustic(model.acoustic_encoder, config.lookahead_frames)

    @property
    def window_shape(self) -> tuple[int, ...]:
        return ((self.config.window_frames + 1) * INPUT_HOP,)

    def separate_state(self, slots: int) -> EncoderState:
        return EncoderState(
            position=torch.zeros(slots, dtype=torch.int64, device=self.device),
            frames_seen=torch.zeros(slots, 1, device=self.device),
            mel=self.mel.new_state(slots, self.projection.projection.like),
            conformer=[layer.new_state(slots) for layer in self.conformer],
            adapter=[conv.new_state(slots) for conv in self.adapter],
            acoustic=self.acoustic.new_state(slots),
        )

    def compute(self, x: Tensor, state: EncoderState, plan: StepPlan) -> Tensor:
        """PCM (B, (C + L + 1) * 320) -> tokens (B, C + L)."""
        latent = self.before_quantizer(x, state, plan)
        return self.model.quantizer(latent)[1].squeeze(-1).long()

    def before_quantizer(self, pcm: Tensor, state: EncoderState, plan: StepPlan) -> Tensor:
        """PCM (B, (C + L + 1) * 320) -> the quantiser's input (B, C + L, D)."""
        branches = [self._semantic(pcm, state, plan), self._acoustic(pcm, state, plan)]  # (B, F, S) and (B, F, A)
        return self.model.fc_encoder(torch.cat(branches, dim=2))

    def _acoustic(self, pcm: Tensor, state: EncoderState, plan: StepPlan) -> Tensor:
        acoustic = self.acoustic.step(pcm[..., None].to(self.dtype), state.acoustic, plan.with_valid(plan.valid + 1))
        return acoustic[:, : self.config.window_frames]

    def _semantic(self, pcm: Tensor, state: EncoderState, plan: StepPlan) -> Tensor:
        length = self.config.window_frames * MEL_PER_FRAME
        weights = PoolingWeights(plan, state.frames_seen, length, self.prior_frames, self.cap_frames, MEL_PER_FRAME)
        features = self.mel.step(pcm, state.mel, weights)
        x = self.projection(features.to(self.dtype))[0]  # (B, F, S)
        view = RingView(plan, self.config, x.dtype)
        for layer, part in zip(self.conformer, state.conformer, strict=True):
            x = layer.step(x, part, view)
        return self._adapt(x, state.adapter, plan)

    def _adapt(self, x: Tensor, pasts: list[Tensor], plan: StepPlan) -> Tensor:
        """x (B, F, S) -> (B, F, S)."""
        conv1, conv2, conv3, conv4 = self.adapter
        residual = conv1.step(x, pasts[0], plan).relu()
        x = conv2.step(residual, pasts[1], plan).relu()
        return conv4.step(conv3.step(x, pasts[2], plan) + residual, pasts[3], plan)
