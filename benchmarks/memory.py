"""The memory of a server: `python -m benchmarks.memory`.

Starts a server with one worker, one profile and 4 slots for each dtype, with decoders only and with all kinds. Memory
is proportional (PSS): shared pages are divided among their processes. Figures are MB above the same processes with
torch and transformers imported but without a model, which run at the same time and share the same libraries. Each
server starts twice: the first start packs the weights, the second loads them from the cache.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common.surroundings import RESULTS_FOLDER, write_report
from benchmarks.cost import model_folder
from benchmarks.load.hold import Footprint
from demos.server_process import ServerProcess

RESULTS = RESULTS_FOLDER / "memory.json"
SLOTS = 4
FLAGS = ("--workers", 1, "--profiles", "default", "--max-sessions", SLOTS, "--batch-sizes", "1,2,4")
KINDS = ("decode", "encode,decode")
DTYPES = ("int8", "float32")
TARGETS_MB = {("int8", "decode"): 350, ("int8", "encode,decode"): 900}
WORKER = """
import sys, torch, neucodec_streaming.codec, neucodec_streaming.server.workers.__main__
from transformers import NeuCodecConfig, NeuCodecModel
torch.ones(1).sum()
print("ready", flush=True)
sys.stdin.read()
"""
SERVER = f"""
import subprocess, sys, neucodec_streaming.server.cli
worker = subprocess.Popen([sys.executable, "-c", {WORKER!r}], stdin=sys.stdin)
worker.wait()
"""
"""Code of a server's processes, with all of their imports."""


@contextmanager
def idle_processes() -> Iterator[int]:
    """Yields the first process's id."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        yield process.pid
        process.stdin.close()


def measure(folder: str, dtype: str, kinds: str) -> dict[str, Any]:
    arguments = ("--model", folder, "--dtype", dtype, "--kinds", kinds, *FLAGS)
    starts_s = []
    with idle_processes() as idle:
        for _ in range(2):
            begin_s = time.monotonic()
            with ServerProcess(*arguments) as server:
                starts_s.append(time.monotonic() - begin_s)
                took, base = (Footprint.of(pid).memory_bytes / 1e6 for pid in (server.pid, idle))
    most = TARGETS_MB.get((dtype, kinds))
    row = {"dtype": dtype, "kinds": kinds, "mb": took - base, "with_libraries_mb": took, "at_most_mb": most}
    return row | {"met": None if most is None else took - base <= most, "starts_s": starts_s}


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder, bundled name or hub id; default: full size with random weights")
    parser.add_argument("--dtypes", nargs="+", default=DTYPES)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(given)
    rows = []
    with model_folder(options.model) as folder:
        for dtype in options.dtypes:
            for kinds in KINDS:
                rows.append(measure(folder, dtype, kinds))
                print(
                    "{dtype:>8} {kinds:>14}: {mb:6.0f} MB above the libraries' (at most {at_most_mb}),"
                    " started in {starts_s[0]:.0f} and {starts_s[1]:.0f} s".format(**rows[-1]),
                    flush=True,
                )
                write_report(options.out, {"command": "python -m benchmarks.memory", "slots": SLOTS, "rows": rows})


if __name__ == "__main__":
    main()
