"""The client's process."""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.common.sound_room import lift
from benchmarks.common.surroundings import ROOT

LEAD_IN_S, TAIL_S = 1.0, 2.0
LOSSES = ("microphone_lost", "underruns", "underflows", "skipped_ms")


@contextmanager
def client(room: dict[str, str], *arguments: object) -> Iterator[Iterator[dict[str, Any]]]:
    """Yields the messages of a client in the room, first that it listens."""
    command = [sys.executable, "-m", "benchmarks.mouth_to_ear.client", *map(str, arguments)]
    process = subprocess.Popen(command, cwd=ROOT, env=room, stdout=subprocess.PIPE, text=True)
    lift(process.pid)
    try:
        assert process.stdout is not None
        yield _told(process.stdout)
        process.wait(20)  # its session ends with a closing handshake: a lost one keeps its place for a while
    finally:
        process.terminate()
        process.wait(20)


def _told(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    yield from map(json.loads, lines)
    raise SystemExit("the client exited before its last message; its error is above")
