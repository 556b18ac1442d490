"""The command `neucodec-server`: settings, start, one line when ready, and a clean stop on SIGINT or SIGTERM.

Exit codes: 0 stopped on request, 2 an invalid setting (also a busy port), 3 a model that cannot be loaded, 1 anything
else, such as a worker that ended.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from neucodec_streaming.config import StreamConfig
from neucodec_streaming.engine.scheduler import Pool
from neucodec_streaming.errors import ConfigError, DeviceError, ModelError, StreamingError
from neucodec_streaming.lazy import missing_extra
from neucodec_streaming.server.app import App
from neucodec_streaming.server.loading import load_engines
from neucodec_streaming.server.logs import log_to_stderr
from neucodec_streaming.server.model import latency_ms
from neucodec_streaming.server.preflight import check_device, check_model
from neucodec_streaming.server.sessions.admission import Admission
from neucodec_streaming.server.settings.fields import Settings
from neucodec_streaming.server.settings.sources import add_flags, check_files, resolve, table
from neucodec_streaming.server.settings.spec import ENVIRONMENT
from neucodec_streaming.server.workers.worker import EngineLoader

if TYPE_CHECKING:
    from neucodec_streaming.server.mqtt.bridge import Bridge

EXIT_CONFIG = 2
EXIT_MODEL = 3

_log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Runs the server until it is stopped; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["convert"]:
        return convert_checkpoint(arguments[1:])
    given = _parser().parse_args(arguments)
    try:
        resolved = resolve(vars(given), os.environ)
        settings = resolved.settings
        if given.check_config:
            if resolved.unknown:
                raise ConfigError("; ".join(resolved.unknown))
            check_files(settings)
            check_model(settings.model)
            check_device(settings.device)
            _bridge(settings, App(settings))  # both read keys and certificates, and raise their errors
            print(table(resolved))
            return 0
        log_to_stderr(settings.log_level, settings.log_format)
        for sentence in resolved.unknown:
            _log.warning("%s", sentence)
        if resolved.origins.get("mqtt") == ENVIRONMENT:
            settings = _without_broker_of_client(settings)
        if given.capacity:
            print(capacity_table(settings))
            return 0
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(serve(settings))
    except StreamingError as error:
        return _complain(error)


def convert_checkpoint(arguments: list[str]) -> int:
    """`neucodec-server convert`: converts an original checkpoint to a model folder; returns the exit code."""
    parser = argparse.ArgumentParser(
        "neucodec-server convert", description="Make a model folder from a checkpoint in the original package's layout."
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="a folder with pytorch_model.bin, or such a file")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the model folder to make")
    parser.add_argument(
        "--semantic", type=Path, metavar="FOLDER", help="w2v-BERT 2.0; without it the model only decodes"
    )
    given = parser.parse_args(arguments)
    from neucodec_streaming.checkpoints import convert

    try:
        remarks = convert(given.source, given.folder, given.semantic)
    except ModelError as error:
        return _complain(error)
    print("\n".join([f"{given.folder}: model folder for --model or load_codec", *remarks]))
    return 0


async def serve(settings: Settings, load: EngineLoader = load_engines, *, apart: bool = os.name == "posix") -> int:
    """Serves until SIGINT or SIGTERM, then returns 0. `load` and `apart` as in App. Raises errors of the start."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.set)
    app = App(settings, load, apart=apart)
    bridge = _bridge(settings, app)
    await app.start()
    loading = asyncio.create_task(app.loaded(), name="loading")
    stopped = asyncio.create_task(stop.wait(), name="stop signal")
    try:
        await asyncio.wait([loading, stopped], return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
            model = app.model
            assert model is not None, "loaded"
            profiles = ", ".join(model.profiles)
            limit = f"room for {app.room()} {model.kinds[-1]} sessions"
            print(f"neucodec-server ready at {app.url} (model {model.name}; profiles {profiles}; {limit})", flush=True)
            if bridge is not None:
                bridge.start()
            failed = asyncio.create_task(app.failed(), name="failed")
            await asyncio.wait([stopped, failed], return_when=asyncio.FIRST_COMPLETED)
            failed.cancel()
            if bridge is not None:
                await bridge.stop(settings.stop_timeout_s)
            if not stopped.done():
                raise DeviceError("a worker has stopped: the server exits, and clients resume once it is running again")
            _log.info(
                "shutting down: open sessions have %.0f s to end; a second signal closes them now", settings.drain_s
            )
            stop.clear()
            again = asyncio.create_task(stop.wait(), name="second signal")
            draining = asyncio.create_task(app.drain(), name="drain")
            await asyncio.wait([draining, again], return_when=asyncio.FIRST_COMPLETED)
            draining.cancel()
            again.cancel()
    finally:
        loading.cancel()
        stopped.cancel()
        await app.stop()
    return 0


def capacity_table(settings: Settings, load: EngineLoader = load_engines) -> str:
    """Measures and prints how many sessions fit and how long steps take. Raises ModelError, ConfigError."""
    engines, model = load(settings)
    admission = Admission(model.budget, settings.max_sessions, len(engines))
    kinds = model.kinds
    lines = [
        f"{model.name} on {settings.device}, workers: {len(engines)}. Sessions of one kind whose steps keep the"
        f" device, and on CUDA the host, busy for at most {settings.max_load:.0%} of the time"
        f" (no more than {settings.max_sessions}, the setting max_sessions)",
        " ".join(f"{cell:>12}" for cell in ("profile", "latency_ms", *kinds)),
    ]
    for name, config in model.profiles.items():
        counts = [admission.capacity(kind, config) for kind in kinds]
        cells = (name, f"{latency_ms(kinds[-1], config, output_rate=model.output_rate):.0f}", *counts)
        lines.append(" ".join(f"{cell!s:>12}" for cell in cells))
    lines += ["", "milliseconds per step, by number of sessions in it"]
    lines.append(" ".join(f"{cell!s:>12}" for cell in ("profile", "part", *settings.batch_sizes)))
    names = {config: name for name, config in reversed(model.profiles.items())}
    lines += _times(model.budget.step_s, names)
    if model.budget.host_s:
        lines += ["", "milliseconds of the host for such a step, while the device computes another"]
        lines += _times(model.budget.host_s, names)
    return "\n".join(lines)


def _times(seconds: Mapping[Pool, Mapping[int, float]], names: Mapping[StreamConfig, str]) -> list[str]:
    rows = [
        [names[pool.config], pool.kind, *(f"{1000 * one:.1f}" for one in of.values())] for pool, of in seconds.items()
    ]
    return [" ".join(f"{cell:>12}" for cell in row) for row in rows]


def _bridge(settings: Settings, app: App) -> "Bridge | None":
    """The bridge to a broker, if the settings name one. Raises ConfigError."""
    if settings.mqtt is None:
        return None
    try:
        from neucodec_streaming.server.mqtt.bridge import Bridge, broker_address
    except ModuleNotFoundError as error:
        raise ConfigError(str(missing_extra(error, "the setting mqtt"))) from None
    return Bridge(broker_address(settings), app.open, settings.mqtt_hermes_sites, settings.max_message_bytes)


def _without_broker_of_client(settings: Settings) -> Settings:
    """The client reads NEUCODEC_MQTT too: a value that only the client can use must not stop the server."""
    try:
        _bridge(settings, App(settings))
    except ConfigError as error:
        _log.warning("ignoring NEUCODEC_MQTT, which only the client can use, so the server serves no broker: %s", error)
        return replace(settings, mqtt=None)
    return settings


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="neucodec-server",
        usage="%(prog)s [--config FILE] [SETTING ...] [--check-config | --capacity]\n"
        "       %(prog)s encode-files | decode-files --help   (whole recordings in bulk)",
        description="Serves NeuCodec live over WebSockets: 16 kHz audio to tokens, tokens to 24 kHz audio.",
        epilog="Every setting is also an environment variable (NEUCODEC_MAX_SESSIONS=8) and a key of the --config file"
        " (max_sessions = 8). Flags override the environment, which overrides the file.",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=38),
    )
    add = parser.add_mutually_exclusive_group().add_argument
    add("--check-config", action="store_true", help="print every setting in force with its source, and exit")
    add("--capacity", action="store_true", help="measure how many sessions fit, print the table, and exit")
    add_flags(parser)
    return parser


def _complain(error: StreamingError) -> int:
    """Prints the error; returns the exit code."""
    print(f"neucodec-server: {error}", file=sys.stderr)
    return EXIT_CONFIG if isinstance(error, ConfigError) else EXIT_MODEL if isinstance(error, ModelError) else 1
