"""Steps a layer through a whole signal, chunk by chunk, with as much lookahead as it can use."""

from collections.abc import Callable

import torch
from torch import Tensor

from neucodec_streaming.layers.step import StepPlan


def in_chunks(step: Callable[[Tensor, StepPlan], Tensor], x: Tensor, chunks: list[int], unit: int, last: int) -> Tensor:
    """Steps x (1, T, C) over `chunks` frames at a time, each with up to `last` frames of lookahead; joins the committed
    outputs. Every window has the same shape; frames that do not exist hold rubbish.
    """
    frames = x.shape[1] // unit
    window = max(chunks) + last
    position, parts = 0, []
    for chunk in chunks:
        valid = min(window, frames - position)
        rubbish = torch.full((1, window * unit, x.shape[2]), 99.0)
        rubbish[:, : valid * unit] = x[:, position * unit : (position + valid) * unit]
        plan = StepPlan(*(torch.tensor([count]) for count in (0, valid, chunk, position)))
        y = step(rubbish, plan)
        parts.append(y[:, : y.shape[1] // window * chunk])
        position += chunk
    assert position == frames
    return torch.cat(parts, dim=1)


def random_chunks(frames: int, seed: int) -> list[int]:
    """Lengths of 1 to 7."""
    generator = torch.Generator().manual_seed(seed)
    chunks: list[int] = []
    while (left := frames - sum(chunks)) > 0:
        chunks.append(min(left, int(torch.randint(1, 8, (1,), generator=generator))))
    return chunks
