"""The served model: a loaded codec, its profiles, and warmed-up engines.

`load_engines` runs in the worker process and imports torch there, so that the server's own process does without it.
"""

import hashlib
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from neucodec_streaming.config import INPUT_RATE, OUTPUT_RATE, StreamConfig, roundtrip_latency_ms
from neucodec_streaming.engine.budget import Budget
from neucodec_streaming.engine.engine import STAGES, Engine
from neucodec_streaming.engine.scheduler import Pool
from neucodec_streaming.errors import ConfigError
from neucodec_streaming.protocol.messages import INPUT_AUDIO, OUTPUT_AUDIO, StreamFormat
from neucodec_streaming.resampler import Resampler
from neucodec_streaming.server.other_load import BUSY_SHARE, OtherLoad
from neucodec_streaming.server.settings.fields import Settings
from neucodec_streaming.server.voices import Voices, read_voices

if TYPE_CHECKING:
    from neucodec_streaming.codec import Codec

MEASURE_S = 8.0
"""Approximate time limit of measuring the steps at startup."""

_log = logging.getLogger(__name__)


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


def load_engines(settings: Settings) -> tuple[list[Engine], Model]:
    """Loads the model, allocates every profile's slots, runs every shape once, and measures it.

    Returns an engine for each worker, to be stepped on its own thread. Raises ModelError, ConfigError.
    """

    import torch

    from neucodec_streaming.codec import load_codec
    from neucodec_streaming.engine.runner import Runner
    from neucodec_streaming.kernels.memory import give_back_freed_memory

    voices = Voices() if settings.voices is None else read_voices(settings.voices)
    use_threads(settings)
    codec = load_codec(
        settings.model,
        settings.device,
        settings.dtype,
        stream_json=settings.stream_json,
        kinds=settings.kinds,
        threads=torch.get_num_threads(),
    )
    codec.pack()
    own = codec.default_config
    profiles = {
        name: own if pair is None else replace(own, chunk_frames=pair[0], lookahead_frames=pair[1])
        for name, pair in settings.profiles.items()
    }
    configs = list(dict.fromkeys(profiles.values()))
    pools = [Pool(kind, config) for config in configs for kind in settings.kinds]
    workers = worker_count(settings)
    slots = slots_each(settings.max_sessions, workers)
    runner = Runner(codec, pools, slots, settings.batch_sizes, settings.cuda_graphs)
    _log.info("model %s loaded, warming up %d shapes", codec.name, len(pools) * len(settings.batch_sizes))
    runner.warm_up()
    if "decode" in settings.kinds:
        runner.hold_voices(list(voices.tokens.values()))
    runners = [runner, *(runner.replicate() for _ in range(workers - 1))]
    other_load = OtherLoad()
    with ThreadPoolExecutor(workers, initializer=use_threads, initargs=(settings,)) as threads:  # all at once, as later
        times = list(threads.map(lambda one: one.measure(time.perf_counter, MEASURE_S), runners))
    give_back_freed_memory()  # of the threads that measured, and of other shapes
    share = other_load.share()
    if share > BUSY_SHARE:
        _log.warning(
            "other programs used %.0f %% of the processors while the steps were measured: the capacity is that of a"
            " busy machine; it is measured again once the machine is idle and no session is open",
            100 * share,
        )
    step_s = {pool: {size: max(time[pool][size] for time in times) for size in settings.batch_sizes} for pool in pools}
    engines = [Engine(one, settings.gather_ms / 1000, settings.max_behind_s, step_s) for one in runners]
    budget = Budget(step_s, settings.max_load)
    fingerprint = _fingerprint(codec, settings) if len(settings.batch_sizes) == 1 else ""
    name, default = codec.public_name, settings.default_profile
    return engines, Model(
        name, profiles, default, budget, fingerprint, settings.kinds, codec.sample_rate, voices, share > BUSY_SHARE
    )


def worker_count(settings: Settings) -> int:
    """Number of workers under these settings on this machine. Raises ConfigError for more than one on CUDA."""
    if settings.device.startswith("cpu"):
        return settings.workers or _cores()
    if settings.workers not in (None, 1):
        raise ConfigError(
            f"workers is {settings.workers}: device {settings.device} uses exactly one, so set it to 1 or leave it out"
        )
    return 1


def use_threads(settings: Settings) -> None:
    """Configures torch for the calling thread: the device, and the number of CPU threads."""
    import torch

    if settings.device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise ConfigError(f"device {settings.device!r} cannot be used (PyTorch finds no CUDA device): use cpu")
        torch.cuda.set_device(torch.device(settings.device).index or 0)
        is_tf32 = settings.float32_products == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = is_tf32
    torch.set_num_threads(settings.threads or 1)


def _fingerprint(codec: "Codec", settings: Settings) -> str:
    """Hash of everything that determines the bits of the output."""
    import torch

    chip: object = torch.backends.cpu.get_cpu_capability()
    if settings.device.startswith("cuda"):
        name, cudnn = torch.cuda.get_device_name(settings.device), torch.backends.cudnn.version()
        chip = name, torch.version.cuda, cudnn, settings.float32_products, settings.cuda_graphs
    versions = [version(name) for name in ("neucodec-streaming", "torch", "transformers")]
    parts = (codec.fingerprint, versions, chip, settings.dtype, settings.batch_sizes, torch.get_num_threads())
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def slots_each(max_sessions: int, workers: int) -> int:
    """Slots of each worker in every pool."""
    return -(-max_sessions // workers)
