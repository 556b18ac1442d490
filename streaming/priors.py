"""The content of `stream.json`: defaults of a stream, and priors of its normalisations.

    {"version": 1, "chunk_frames": 5, "lookahead_frames": 5, "context_frames": 250, "prior_weight": 12,
     "mel": {"mean": [80], "variance": [80]},                       mean relative to the overall level (log units)
     "group_norm": [{"mean": [32], "variance": [32]}, ...],         in the order of the decoder, two a ResNet block
     "measured": {"recordings": 180, "minutes": 30, "level_dbfs": -26.1}}       information only

A folder without the file streams without priors.
"""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from neucodec_streaming.config import StreamConfig
from neucodec_streaming.errors import ConfigError, ModelError
from neucodec_streaming.layers.norm import Moments

VERSION = 1


@dataclass(frozen=True)
class Statistics:
    """Mean and variance of G statistics of speech."""

    mean: tuple[float, ...]
    variance: tuple[float, ...]

    def moments(self, device: torch.device) -> Moments:
        """As moments (1, G)."""
        return Moments(*(torch.tensor([values], device=device) for values in (self.mean, self.variance)))


@dataclass(frozen=True)
class Priors:
    """Defaults of a stream and its priors; no priors if the model has no `stream.json`."""

    config: StreamConfig = field(default_factory=lambda: StreamConfig(prior_weight=0))
    mel: Statistics | None = None
    group_norm: tuple[Statistics, ...] = ()

    def weight(self, config: StreamConfig) -> float:
        """Weight of the priors in frames under `config`; 0 disables them."""
        own = self.config.prior_weight if config.prior_weight is None else config.prior_weight
        return float(own or 0) if self.mel and self.group_norm else 0.0

    def mel_moments(self, config: StreamConfig, device: torch.device) -> Moments | None:
        return self.mel.moments(device) if self.mel and self.weight(config) else None

    def group_norm_moments(self, config: StreamConfig, device: torch.device, norms: int) -> list[Moments | None]:
        """Moments (1, 32), one for each norm of the decoder."""
        if not self.weight(config):
            return [None] * norms
        if len(self.group_norm) != norms:
            raise ModelError(
                f"stream.json has {len(self.group_norm)} group_norm entries, the model {norms}: calibrate it again"
            )
        return [statistics.moments(device) for statistics in self.group_norm]


def read_priors(path: Path) -> Priors:
    """Reads a `stream.json`; a missing file gives no priors. Raises ModelError for an invalid file."""
    if not path.exists():
        return Priors()
    try:
        content = json.loads(path.read_text())
        if content["version"] != VERSION:
            raise ModelError(
                f"{path} has version {content['version']!r}, this software reads {VERSION}: calibrate again"
            )
        config = StreamConfig(**{part.name: content[part.name] for part in fields(StreamConfig)})
        return Priors(config, _statistics(content["mel"], 80), tuple(_statistics(n, 32) for n in content["group_norm"]))
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise ModelError(
            f"{path} cannot be used ({error}): remove it to stream without priors, or calibrate again"
        ) from error


def _statistics(content: dict[str, Any], length: int) -> Statistics:
    mean, variance = (tuple(float(value) for value in content[name]) for name in ("mean", "variance"))
    if len(mean) != length or len(variance) != length or not all(value >= 0 for value in variance):
        raise ValueError(f"expected {length} means and {length} variances >= 0")
    return Statistics(mean, variance)
