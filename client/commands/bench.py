"""`neucodec bench`: latency and speed of a server and the network to it.

Each kind of session that the server offers runs twice: at the pace of a microphone, for the first output and response
times, and as fast as possible, for the real-time factor. The input is noise; the cost does not depend on it.
"""

import argparse
import asyncio
import json
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from neucodec_streaming.client.commands.display import LiveRows, progress
from neucodec_streaming.client.commands.sessions import open_session
from neucodec_streaming.client.connection import Connection
from neucodec_streaming.client.transfer import TransferReport, transfer
from neucodec_streaming.config import CODEBOOK_SIZE, FRAME_MS
from neucodec_streaming.errors import PathError
from neucodec_streaming.protocol.query import PATHS

_LOUDNESS = 0.1
_COLUMNS = ("algorithm", "connect", "first output", "p50", "p99", "max", "real-time factor")


async def bench(options: argparse.Namespace) -> None:
    """Measures every kind of session that is served and prints the figures."""
    results: list[dict[str, Any]] = []
    refused: PathError | None = None
    with LiveRows(quiet=options.json) as rows:
        for kind in PATHS.values():
            try:
                results.append(await _measure(options, kind, rows))
            except PathError as error:  # this kind is not served
                refused = error
    if refused is not None and not results:
        raise refused
    ready: dict[str, Any] = {name: results[0].pop(name) for name in ("model", "profile")}
    figures = {"command": "bench", "server": options.server, **ready, "seconds": options.seconds, "sessions": results}
    if options.json:
        print(json.dumps(figures))
    else:
        _print_table(figures)


async def _measure(options: argparse.Namespace, kind: str, rows: LiveRows) -> dict[str, Any]:
    clock = asyncio.get_running_loop().time
    begin_s = clock()
    async with open_session(options, kind) as connection:
        connect_ms = (clock() - begin_s) * 1000
        paced = await _run(connection, options.seconds, rows, f"{kind}, run 1 of 2", realtime=True)
    async with open_session(options, kind) as connection:
        fast = await _run(connection, options.seconds, rows, f"{kind}, run 2 of 2", realtime=False)
    return {
        "model": paced.ready.model,
        "profile": paced.ready.profile,
        "kind": kind,
        "algorithm_ms": paced.ready.latency_ms,
        "connect_ms": round(connect_ms, 1),
        "first_output_ms": paced.as_dict()["first_output_ms"],
        **paced.responses.as_dict(),
        "real_time_factor": round(fast.real_time_factor, 4),
    }


async def _run(connection: Connection, seconds: float, rows: LiveRows, name: str, *, realtime: bool) -> TransferReport:
    packets = _noise(connection, round(seconds * 1000 / FRAME_MS))
    rows.watch(connection)
    return await transfer(
        connection,
        packets,
        lambda output: None,
        realtime=realtime,
        on_progress=lambda report: rows.show({"measured": name, "sent": progress(report, seconds)}),
    )


def _noise(connection: Connection, count: int) -> list[np.ndarray]:
    """Packets of 20 ms."""
    random, source = np.random.default_rng(0), connection.ready.input
    if source.kind == "tokens":
        return list(random.integers(0, CODEBOOK_SIZE, (count, source.hop)).astype(np.uint16))
    return list(random.uniform(-_LOUDNESS, _LOUDNESS, (count, source.hop)).astype(np.float32))


def _print_table(figures: dict[str, Any]) -> None:
    print(f"{figures['server']}: {figures['model']}, profile {figures['profile']}; times in ms;")
    print("p50 to max: from sending the last input that an output needs to receiving the output")
    table = Table("session", *_COLUMNS, box=None, pad_edge=False)
    for result in figures["sessions"]:
        response = result["response_ms"] or {"p50": None, "p99": None, "max": None}
        values = [result["algorithm_ms"], result["connect_ms"], result["first_output_ms"], *response.values()]
        shown = ["-" if value is None else f"{value:.0f}" for value in values]
        table.add_row(result["kind"], *shown, f"{result['real_time_factor']:.3f}")
    Console(highlight=False).print(table)
