"""BigCodec's convolutional encoder, stepped: residual units and strided convolutions from audio rate to frame rate."""

from typing import Any

from torch import Tensor

from streaming.layers.antialias import StreamingActivation
from streaming.layers.conv import StreamingConv
from streaming.layers.step import Step

Layer = StreamingConv | StreamingActivation


class ResidualUnit:
    """Activation, dilated convolution, activation, pointwise convolution, and the input added."""

    def __init__(self, unit_module: Any, unit: int) -> None:
        self.layers: list[Layer] = [
            StreamingActivation(unit_module.snake1, unit),
            StreamingConv(unit_module.conv1, unit),
            StreamingActivation(unit_module.snake2, unit),
        ]
        self.pointwise = unit_module.conv2

    def new_state(self, slots: int) -> list[Tensor]:
        return [layer.new_state(slots) for layer in self.layers]

    def step(self, x: Tensor, state: list[Tensor], at: Step) -> Tensor:
        """x (B, T, C) -> (B, T, C)."""
        y = x
        for layer, past in zip(self.layers, state, strict=True):
            y = layer.step(y, past, at)
        return x + self.pointwise(y)


class StreamingAcoustic:
    """A `NeuCodecEncoder`: PCM of whole hops to one vector a hop."""

    def __init__(self, encoder: Any, hop: int) -> None:
        unit = hop
        self.layers: list[Layer | ResidualUnit] = [StreamingConv(encoder.conv1, unit)]
        for block in encoder.block:
            self.layers += [ResidualUnit(part, unit) for part in (block.res_unit1, block.res_unit2, block.res_unit3)]
            self.layers += [StreamingActivation(block.snake1, unit), StreamingConv(block.conv1, unit)]
            unit //= block.conv1.stride
        self.layers += [StreamingActivation(encoder.snake1, unit), StreamingConv(encoder.conv2, unit)]

    def new_state(self, slots: int) -> list[Tensor | list[Tensor]]:
        return [layer.new_state(slots) for layer in self.layers]

    def step(self, pcm: Tensor, state: list, at: Step) -> Tensor:
        """pcm (B, hops * 320, 1) -> (B, hops, D); `at.valid` counts hops."""
        x = pcm
        for layer, past in zip(self.layers, state, strict=True):
            x = layer.step(x, past, at)
        return x
