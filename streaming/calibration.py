"""Measures on speech the content of `stream.json`: the priors of the running statistics (streaming/priors.py).

Every recording goes through the offline model. The priors are the mean and variance of each recording, averaged over
recordings, with the mel means relative to the recording's overall level: the best guess before a stream has heard
enough. Statistics are float32 for every dtype of the model.
"""

from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neucodec_streaming.codec import Codec
from neucodec_streaming.config import INPUT_HOP, INPUT_RATE, StreamConfig
from neucodec_streaming.errors import InputError
from neucodec_streaming.layers.fbank import log_mel
from neucodec_streaming.priors import VERSION

MIN_SAMPLES = 50 * INPUT_HOP
SILENCE_DBFS = -60.0
"""Recordings with a lower RMS are skipped as silence."""


@torch.inference_mode()
def measure_priors(codec: Codec, recordings: Iterable[np.ndarray], config: StreamConfig) -> dict[str, Any]:
    """The content of a `stream.json` with the defaults of `config`, from recordings float32 mono at 16 kHz.

    Recordings under a second and silent ones are skipped. Raises InputError if none remains.
    """
    samples = 0
    levels_dbfs: list[float] = []
    mel: list[tuple[Tensor, Tensor]] = []
    norms: list[list[tuple[Tensor, Tensor]]] = []
    for pcm in recordings:
        if len(pcm) < MIN_SAMPLES or (level_dbfs := _level_dbfs(pcm)) < SILENCE_DBFS:
            continue
        samples += len(pcm)
        levels_dbfs.append(level_dbfs)
        mel.append(_mel_statistics(pcm))
        norms.append(_norm_statistics(codec, pcm))
    if not mel:
        raise InputError("all recordings are silent or shorter than a second: use minutes of speech from many speakers")
    return {
        "version": VERSION,
        **asdict(replace(config, prior_weight=config.prior_weight or 0)),
        "mel": _average(mel),
        "group_norm": [_average(list(of_one_norm)) for of_one_norm in zip(*norms, strict=True)],
        "measured": {
            "recordings": len(mel),
            "minutes": round(samples / INPUT_RATE / 60, 2),
            "level_dbfs": round(float(np.mean(levels_dbfs)), 1),
        },
    }


def _level_dbfs(pcm: np.ndarray) -> float:
    """RMS in decibels below full scale; digital silence is at -200."""
    return float(10 * np.log10(np.square(pcm, dtype=np.float64).mean() + 1e-20))


def _mel_statistics(pcm: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean relative to the level and variance, each (80,)."""
    mel = log_mel(torch.from_numpy(pcm)[None])[0]
    mean = mel.mean(0)
    return mean - mean.mean(), mel.var(0)


def _norm_statistics(codec: Codec, pcm: np.ndarray) -> list[tuple[Tensor, Tensor]]:
    """Mean and variance of each group, (G,), at the input of every GroupNorm of the decoder, in its order."""
    network = codec.model.acoustic_decoder
    blocks = [*network.prior_net, *network.post_net]
    layers = [norm for block in blocks for norm in (block.norm1, block.norm2)]
    inputs: list[Tensor] = []
    hooks = [norm.register_forward_pre_hook(lambda _, args: inputs.append(args[0])) for norm in layers]
    try:
        codec.decode(codec.encode(pcm))
    finally:
        for hook in hooks:
            hook.remove()
    return [_group_statistics(x, norm.num_groups) for x, norm in zip(inputs, layers, strict=True)]


def _group_statistics(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """x (1, C, F) -> mean and variance of each group, (G,)."""
    grouped = x[0].float().reshape(groups, -1)
    return grouped.mean(1), grouped.var(1, correction=0)


def _average(statistics: list[tuple[Tensor, Tensor]]) -> dict[str, list[float]]:
    mean, variance = (torch.stack(part).mean(0) for part in zip(*statistics, strict=True))
    return {"mean": _rounded(mean), "variance": _rounded(variance)}


def _rounded(values: Tensor) -> list[float]:
    """Five significant digits, since the model's values may be very small."""
    return [float(f"{value:.5g}") for value in values.tolist()]
