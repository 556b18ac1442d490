"""Measures on speech what `stream.json` holds: the priors of the running statistics (streaming/priors.py).

Every recording goes through the offline model. What counts is what a stream must guess before it has heard enough: each
recording's own mean and variance, averaged over recordings; the mel means relative to the recording's overall level.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from streaming.codec import Codec
from streaming.config import INPUT_HOP, StreamConfig
from streaming.errors import InputError
from streaming.layers.features import log_mel
from streaming.priors import VERSION


@torch.inference_mode()
def measure_priors(codec: Codec, recordings: Iterable[np.ndarray], config: StreamConfig) -> dict[str, Any]:
    """The content of a `stream.json` with the defaults of `config`, from recordings float32 mono at 16 kHz.

    Recordings under a second are left out. Raises InputError when none is left.
    """
    mel: list[tuple[Tensor, Tensor]] = []
    norms: list[list[tuple[Tensor, Tensor]]] = []
    network = codec.model.acoustic_decoder
    blocks = [*network.prior_net, *network.post_net]
    layers = [norm for block in blocks for norm in (block.norm1, block.norm2)]
    for pcm in recordings:
        if len(pcm) < 50 * INPUT_HOP:
            continue
        mel.append(_mel_statistics(pcm))
        inputs: list[Tensor] = []
        collect = partial(_collect, inputs)
        hooks = [norm.register_forward_pre_hook(collect) for norm in layers]
        try:
            codec.decode(codec.encode(pcm))
        finally:
            for hook in hooks:
                hook.remove()
        norms.append([_group_statistics(x, norm.num_groups) for x, norm in zip(inputs, layers, strict=True)])
    if not mel:
        raise InputError("no recording of a second or more: give some minutes of speech of several speakers")
    return {
        "version": VERSION,
        "chunk_frames": config.chunk_frames,
        "lookahead_frames": config.lookahead_frames,
        "context_frames": config.context_frames,
        "prior_weight": config.prior_weight or 0,
        "mel": _average(mel),
        "group_norm": [_average([recording[place] for recording in norms]) for place in range(len(layers))],
    }


def _collect(inputs: list[Tensor], _: Any, args: tuple[Tensor, ...]) -> None:
    inputs.append(args[0])


def _mel_statistics(pcm: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean relative to the level and variance, each (80,)."""
    mel = log_mel(torch.from_numpy(pcm)[None])[0]
    mean = mel.mean(0)
    return mean - mean.mean(), mel.var(0)


def _group_statistics(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """x (1, C, F) -> mean and variance of each group, (G,)."""
    grouped = x[0].float().reshape(groups, -1)
    return grouped.mean(1), grouped.var(1, correction=0)


def _average(statistics: list[tuple[Tensor, Tensor]]) -> dict[str, list[float]]:
    mean, variance = (torch.stack(part).mean(0) for part in zip(*statistics, strict=True))
    return {"mean": [round(v, 5) for v in mean.tolist()], "variance": [round(v, 5) for v in variance.tolist()]}
