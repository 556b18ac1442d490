"""The command `neucodec-server`: flags to settings, start, one line when ready, and a clean stop on SIGINT or SIGTERM.

Exit codes: 0 stopped as asked, 2 a setting that cannot be (a busy port among them), 3 a model that cannot be loaded,
1 anything else.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from server.admission import Admission
from server.app import App, Load
from server.model import latency_ms, load_engines
from server.settings import DTYPES, PROFILES, Settings, parse_batch_sizes, parse_profiles
from streaming.engine.engine import STAGES
from streaming.errors import ConfigError, ModelError, StreamingError

EXIT_CONFIG = 2
EXIT_MODEL = 3
API_KEYS = "NEUCODEC_API_KEYS"
"""Variable of the environment with plain API keys."""

_log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Runs the server until it is told to stop; returns the exit code."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(level=given.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        if given.capacity:
            print(capacity_table(_settings(given)))
            return 0
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(serve(_settings(given)))
    except ConfigError as error:
        return _complain(error, EXIT_CONFIG)
    except ModelError as error:
        return _complain(error, EXIT_MODEL)
    except StreamingError as error:
        return _complain(error, 1)


async def serve(settings: Settings, load: Load = load_engines) -> int:
    """Serves until SIGINT or SIGTERM; 0 then. Raises what prevents the start."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.set)
    app = App(settings, load)
    await app.start()
    loading = asyncio.create_task(app.loaded(), name="loading")
    stopped = asyncio.create_task(stop.wait(), name="stop signal")
    try:
        await asyncio.wait([loading, stopped], return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
            assert app.model is not None
            profiles = ", ".join(app.model.profiles)
            limit = f"room for {app.room()} roundtrip sessions"
            print(
                f"neucodec-server ready at {app.url} (model {app.model.name}; profiles {profiles}; {limit})", flush=True
            )
            await stopped
            _log.info("stopping")
    finally:
        loading.cancel()
        stopped.cancel()
        await app.stop()
    return 0


def capacity_table(settings: Settings, load: Load = load_engines) -> str:
    """Measures, and tells how many sessions fit and what a step takes. Raises ModelError, ConfigError."""
    engines, model = load(settings)
    admission = Admission(model.budget, settings.max_sessions, len(engines))
    kinds = list(STAGES)
    lines = [
        f"{model.name} on {settings.device}, {len(engines)} workers: sessions of one kind whose steps take at most"
        f" {settings.max_load:.0%} of the time (no more than {settings.max_sessions}, the setting max_sessions)",
        " ".join(f"{cell:>12}" for cell in ("profile", "latency_ms", *kinds)),
    ]
    for name, config in model.profiles.items():
        counts = [admission.capacity(kind, config) for kind in kinds]
        cells = (name, f"{latency_ms('roundtrip', config):.0f}", *counts)
        lines.append(" ".join(f"{cell!s:>12}" for cell in cells))
    lines += ["", "milliseconds of a step, by sessions in it"]
    lines.append(" ".join(f"{cell!s:>12}" for cell in ("profile", "part", *settings.batch_sizes)))
    names = {config: name for name, config in reversed(model.profiles.items())}
    for pool, times in model.budget.step_s.items():
        cells = (names[pool.config], pool.kind, *(f"{seconds * 1000:.1f}" for seconds in times.values()))
        lines.append(" ".join(f"{cell:>12}" for cell in cells))
    return "\n".join(lines)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed, otherwise asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _settings(given: argparse.Namespace) -> Settings:
    known = {item.name for item in fields(Settings)}
    named = {name: value for name, value in vars(given).items() if name in known and value is not None}
    return Settings(api_keys=_names(os.environ.get(API_KEYS, "")), **named)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _parser() -> argparse.ArgumentParser:
    default = Settings()
    parser = argparse.ArgumentParser(
        prog="neucodec-server",
        description="Serves NeuCodec live over WebSockets: 16 kHz audio to tokens, tokens to 24 kHz audio.",
    )
    add = parser.add_argument
    add("--model", help=f"nano (bundled), a folder, or a hub id such as neuphonic/neucodec (default {default.model})")
    add("--stream-json", help="defaults and priors of the model (default: the stream.json beside its weights, if any)")
    add("--host", help=f"address to listen at (default {default.host}; 0.0.0.0 for every one of this machine)")
    add("--port", type=int, help=f"port to listen at, 0 for any free one (default {default.port})")
    add(
        "--api-keys-file",
        metavar="FILE",
        help="hashes of API keys, see docs/security.md (default: everyone may come in)",
    )
    add("--allow-origins", type=_names, metavar="ORIGIN,...", help="web pages that may connect (default: every one)")
    add("--tls-cert", metavar="FILE", help="certificate in PEM; with it the server speaks wss://")
    add("--tls-key", metavar="FILE", help="its key")
    add(
        "--trusted-proxies",
        type=_names,
        metavar="NETWORK,...",
        help="whose X-Forwarded-For is believed (default: none)",
    )
    add("--max-attempts-per-minute", type=int, help="to open a session, of one address (default: no limit)")
    add("--max-sessions-per-key", type=int, help="at a time (default: no limit)")
    add("--max-sessions-per-address", type=int, help="at a time (default: no limit)")
    add("--device", help=f"torch device (default {default.device})")
    add("--dtype", choices=DTYPES, help=f"of weights and arithmetic (default {default.dtype})")
    add("--workers", type=int, help="device threads that share the sessions (default: one for each core; CUDA: one)")
    add("--threads", type=int, help="threads of torch in each worker (default: the cores that there are for it)")
    add("--capacity", action="store_true", help="measure how many sessions fit, print the table, and exit")
    add("--max-sessions", type=int, help=f"sessions at a time; more get 503 (default {default.max_sessions})")
    add("--batch-sizes", type=_read(parse_batch_sizes), help="such as 1,4,8; one alone: the same bits always")
    names = ", ".join(PROFILES)
    add("--profiles", type=_read(parse_profiles), help=f"those of {names} to offer, or NAME=CHUNK:LOOKAHEAD in frames")
    for name, what in (
        ("max_load", "share of the time that steps may take, as measured at the start; sessions beyond it get 503"),
        ("max_behind_s", "when chunks are later than that and do not catch up, the newest session is closed"),
        ("gather_ms", "the longest that a lone chunk waits for others to be computed with"),
        ("max_message_bytes", "limit of one message"),
        ("max_pending_seconds", "input that may wait before a client is slowed"),
        ("max_queue_bytes", "output that may wait before a session pauses"),
        ("send_timeout_s", "a client that takes nothing for so long is disconnected"),
        ("ping_interval_s", "between pings"),
        ("ping_timeout_s", "for the answer to a ping"),
    ):
        kind = type(getattr(default, name))
        add("--" + name.replace("_", "-"), type=kind, help=f"{what} (default {getattr(default, name):g})")
    add("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser


def _read(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """`parse` as argparse wants it: its error becomes a usage error with the same words."""

    def read(text: str) -> Any:
        try:
            return parse(text)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _complain(error: StreamingError, code: int) -> int:
    print(f"neucodec-server: {error}", file=sys.stderr)
    return code
