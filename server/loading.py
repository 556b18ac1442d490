"""Loads what a server serves: a codec, and warmed-up engines with the measured time of their steps.

`load_engines` runs in the worker process and imports torch there, so that the server's own process does without it.
"""

import hashlib
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from neucodec_streaming.engine.budget import Budget
from neucodec_streaming.engine.engine import Engine
from neucodec_streaming.engine.scheduler import Pool
from neucodec_streaming.errors import ConfigError
from neucodec_streaming.server.model import Model, slots_each, worker_count
from neucodec_streaming.server.other_load import BUSY_SHARE, OtherLoad
from neucodec_streaming.server.settings.fields import Settings
from neucodec_streaming.server.voices import Voices, read_voices
from neucodec_streaming.server.workers.rehearsal import host_s_of

if TYPE_CHECKING:
    from neucodec_streaming.codec import Codec

SLOTS_SHARE = 0.8
"""Share of a GPU's free memory that slots may take; the steps need the rest."""
MEASURE_S = 8.0
"""Approximate time limit of measuring the steps at startup."""

_log = logging.getLogger(__name__)


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
    _check_memory(codec, pools, settings)
    runner = Runner(codec, pools, slots, settings.batch_sizes, settings.cuda_graphs)
    _log.info("model %s loaded, warming up %d shapes", codec.name, len(pools) * len(settings.batch_sizes))
    runner.warm_up()
    if "decode" in settings.kinds:
        runner.hold_voices(list(voices.tokens.values()))
    runners = [runner, *(runner.replicate() for _ in range(workers - 1))]
    other_load = OtherLoad()
    with ThreadPoolExecutor(workers, initializer=use_threads, initargs=(settings,)) as threads:  # as in service
        times = list(threads.map(lambda one: one.measure(time.perf_counter, MEASURE_S), runners))
    give_back_freed_memory()  # that of the measuring threads and of other shapes
    share = other_load.share()
    if share > BUSY_SHARE:
        _log.warning(
            "other programs used %.0f %% of the processors while the steps were measured: the capacity is that of a"
            " busy machine; it is measured again once the machine is idle and no session is open",
            100 * share,
        )
    step_s = {pool: {size: max(time[pool][size] for time in times) for size in settings.batch_sizes} for pool in pools}
    engines = [Engine(one, settings.gather_ms / 1000, settings.max_behind_s, step_s) for one in runners]
    budget = Budget(step_s, settings.max_load, host_s_of(runner, codec.sample_rate))
    fingerprint = _fingerprint(codec, settings) if len(settings.batch_sizes) == 1 else ""
    name, default = codec.public_name, settings.default_profile
    return engines, Model(
        name, profiles, default, budget, fingerprint, settings.kinds, codec.sample_rate, voices, share > BUSY_SHARE
    )


def _check_memory(codec: "Codec", pools: list[Pool], settings: Settings) -> None:
    """Raises ConfigError if the slots do not fit into the memory of a GPU."""
    import torch

    if not settings.device.startswith("cuda"):
        return
    steppers = [codec.encoder(one.config) if one.kind == "encode" else codec.decoder(one.config) for one in pools]
    each = sum(stepper.slot_bytes for stepper in steppers)
    free = int(torch.cuda.mem_get_info(codec.device)[0] * SLOTS_SHARE)
    if (settings.max_sessions + 1) * each > free:  # one is spare
        taken_gb, free_gb, most = (settings.max_sessions + 1) * each / 1e9, free / 1e9, free // each - 1
        advice = f"set it to {most} or less, or serve" if most >= 1 else "serve"
        raise ConfigError(
            f"max_sessions is {settings.max_sessions}: their slots take {taken_gb:.1f} GB, and {free_gb:.1f} GB of"
            f" {settings.device} may hold slots: {advice} fewer profiles or one kind"
        )


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
