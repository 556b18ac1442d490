"""BigCodec's convolutional encoder, stepped: residual units and strided convolutions from audio rate to frame rate.

Layers at audio rate have a short right context, so most of their outputs are final before the chunk ends. A block keeps
the outputs whose right context was complete (its lead) and computes only what follows them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neucodec_streaming.config import INPUT_HOP, MEL_OVERHANG
from neucodec_streaming.layers.antialias import StreamingActivation
from neucodec_streaming.layers.conv import StreamingConv
from neucodec_streaming.layers.step import StepPlan, advance

Layer = StreamingConv | StreamingActivation


class ResidualUnit:
    """Activation, dilated convolution, activation, pointwise convolution, and the input added."""

    def __init__(self, unit_module: Any, unit: int) -> None:
        self.unit = unit
        self.layers: list[Layer] = [
            StreamingActivation(unit_module.snake1, unit),
            StreamingConv(unit_module.conv1, unit),
            StreamingActivation(unit_module.snake2, unit),
            StreamingConv(unit_module.conv2, unit),
        ]
        self.right = sum(layer.right for layer in self.layers)

    def new_state(self, slots: int) -> list[Tensor]:
        return [layer.new_state(slots) for layer in self.layers]

    def step(self, x: Tensor, state: list[Tensor], plan: StepPlan) -> Tensor:
        """x (B, T, C) -> (B, T, C)."""
        return x + _run(self.layers, x, state, plan)


@dataclass
class BlockState:
    """Outputs of the `lead` hops after the committed ones, (slots, lead * unit, C), and the layers' past inputs."""

    ahead: Tensor
    layers: list


class Block:
    """Consecutive layers, ending with a strided convolution or the encoder's last one.

    They run `lead` hops ahead of the committed frames. A stream's first step fills the lead, from `start_hops` hops.
    """

    def __init__(self, layers: list[Layer | ResidualUnit], lead: int, start_hops: int) -> None:
        self.layers = layers
        self.lead = lead
        self.start_hops = start_hops
        last = layers[-1]
        assert isinstance(last, StreamingConv)
        self.unit = last.unit // last.layer.stride
        self.last = last.layer

    def new_state(self, slots: int) -> BlockState:
        ahead = self.last.like.new_zeros(slots, self.lead * self.unit, self.last.out_channels)
        return BlockState(ahead, [layer.new_state(slots) for layer in self.layers])

    def step(self, x: Tensor, state: BlockState, plan: StepPlan) -> Tensor:
        """x (B, hops * unit_in, C_in) -> (B, hops * unit, C_out); `plan` counts hops."""
        if not self.lead:
            return _run(self.layers, x, state.layers, plan)
        unit = self.layers[0].unit
        before = plan.load(state.ahead)
        if plan.edges:
            fresh = plan.position == 0
            start = plan.window(self.start_hops, torch.where(fresh, self.lead, 0))
            y = _run(self.layers, x[:, : self.start_hops * unit], state.layers, start)
            before = torch.where(fresh[:, None, None], y[:, : before.shape[1]], before)
        ahead = plan.ahead(self.lead, x.shape[1] // unit - self.lead)
        joined = torch.cat([before, _run(self.layers, x[:, self.lead * unit :], state.layers, ahead)], dim=1)
        plan.store(state.ahead, advance(joined, before.shape[1], ahead, self.unit))
        return joined


class StreamingAcoustic:
    """A `NeuCodecEncoder`: whole hops of PCM to one vector a hop. A window has one hop more than its frames."""

    def __init__(self, encoder: Any, lookahead: int) -> None:
        real = lookahead * INPUT_HOP + MEL_OVERHANG  # samples after the chunk
        unit, reach = INPUT_HOP, 0
        layers: list[Layer | ResidualUnit] = [StreamingConv(encoder.conv1, unit)]
        self.blocks: list[Block] = []
        for number, block in enumerate(encoder.block, start=1):
            layers += [ResidualUnit(part, unit) for part in (block.res_unit1, block.res_unit2, block.res_unit3)]
            layers += [StreamingActivation(block.snake1, unit), StreamingConv(block.conv1, unit)]
            unit //= block.conv1.stride
            if number == len(encoder.block):
                layers += [StreamingActivation(encoder.snake1, unit), StreamingConv(encoder.conv2, unit)]
            reach += sum(layer.right * (INPUT_HOP // layer.unit) for layer in layers)
            lead = max(0, (real - reach) // INPUT_HOP)
            self.blocks.append(Block(layers, lead, lookahead + 1))
            layers = []

    def new_state(self, slots: int) -> list[BlockState]:
        return [block.new_state(slots) for block in self.blocks]

    def step(self, pcm: Tensor, state: list[BlockState], plan: StepPlan) -> Tensor:
        """pcm (B, hops * 320, 1) -> (B, hops, D); `plan` counts hops."""
        return _run(self.blocks, pcm, state, plan)


def _run(layers: Sequence[Any], x: Tensor, states: Sequence[Any], plan: StepPlan) -> Tensor:
    """Steps one layer after another, each with its state."""
    for layer, state in zip(layers, states, strict=True):
        x = layer.step(x, state, plan)
    return x
