"""Description of the served model and of the workers that share its sessions. No torch."""

import os
from dataclasses import dataclass, field

from neucodec_streaming.config import INPUT_RATE, OUTPUT_RATE, StreamConfig, roundtrip_latency_ms
from neucodec_streaming.engine.budget import Budget
from neucodec_streaming.engine.engine import STAGES
from neucodec_streaming.errors import ConfigError
from neucodec_streaming.protocol.messages import INPUT_AUDIO, OUTPUT_AUDIO, StreamFormat
from neucodec_streaming.resampler import Resampler
from neucodec_streaming.server.settings.fields import Settings
from neucodec_streaming.server.voices import Voices


@dataclass(frozen=True)
class Model:
    """Description of the served model: its name, its profiles, and the measured time of its steps.

    Models of equal `fingerprint` compute the same bits from the same input. It is empty if bits depend on how many
    sessions are stepped together.
    """

    name: str
    profiles: dict[str, StreamConfig]
    default_profile: str
    budget: Budget = field(default_factory=Budget)
    fingerprint: str = ""
    parts: tuple[str, ...] = ("encode", "decode")
    output_rate: int = OUTPUT_RATE
    voices: Voices = field(default_factory=Voices)
    is_measured_busy: bool = False
    """Whether other programs took part of the machine while its steps were measured."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of session whose parts are served."""
        return tuple(kind for kind, parts in STAGES.items() if set(parts) <= set(self.parts))

    def profile(self, name: str | None) -> tuple[str, StreamConfig]:
        """A profile by name, None for the default. Raises ConfigError listing the known ones."""
        name = self.default_profile if name is None else name
        if name not in self.profiles:
            raise ConfigError(f"profile {name[:40]!r} is unknown: choose one of {', '.join(self.profiles)}")
        return name, self.profiles[name]


def latency_ms(
    kind: str,
    config: StreamConfig,
    input: StreamFormat = INPUT_AUDIO,
    output: StreamFormat = OUTPUT_AUDIO,
    output_rate: int = OUTPUT_RATE,
) -> float:
    """The longest wait of a session's input for later input; includes resampling.

    `output_rate`: the model's.
    """
    into_ms = Resampler(input.rate, INPUT_RATE).delay_ms if input.kind == "audio" else 0.0
    out_of_ms = Resampler(output_rate, output.rate).delay_ms if output.kind == "audio" else 0.0
    if kind == "encode":
        return into_ms + config.encode_latency_ms
    if kind == "decode":
        return config.decode_latency_ms + out_of_ms
    return into_ms + roundtrip_latency_ms(config, config) + out_of_ms


def worker_count(settings: Settings) -> int:
    """Number of workers under these settings on this machine. Raises ConfigError for more than one on CUDA."""
    if settings.device.startswith("cpu"):
        return settings.workers or _cores()
    if settings.workers not in (None, 1):
        raise ConfigError(
            f"workers is {settings.workers}: device {settings.device} uses exactly one, so set it to 1 or leave it out"
        )
    return 1


def _cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def slots_each(max_sessions: int, workers: int) -> int:
    """Slots of each worker in every pool."""
    return -(-max_sessions // workers)
