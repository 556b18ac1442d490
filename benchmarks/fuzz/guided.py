"""Searches every parser of untrusted bytes for crashes by coverage: `python -m benchmarks.fuzz.guided`.

libFuzzer (atheris, the extra `fuzz`) mutates inputs of benchmarks/fuzz/targets.py and keeps those that reach new code.
Each target runs in its own process, since libFuzzer ends its process. The seed is fixed, so runs on the same versions
repeat. The exit code is 1 after a failure.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common.surroundings import RESULTS_FOLDER, write_report

RESULTS = RESULTS_FOLDER / "fuzz_guided.json"
MEASURED = (
    "neucodec_streaming.protocol",
    "neucodec_streaming.audio",
    "neucodec_streaming.tokens",
    "neucodec_streaming.torch_file",
)
MEASURED += (
    "neucodec_streaming.server.auth.gate",
    "neucodec_streaming.server.auth.keys",
    "neucodec_streaming.server.sessions.window_buffer",
)
"""Modules whose coverage guides the search."""
MAX_BYTES = 4096
SEED = 1
DEADLINE_S = 3600.0


def search(name: str, runs: int, seconds: int) -> None:
    import atheris

    with atheris.instrument_imports(include=list(MEASURED)):
        from benchmarks.fuzz.targets import SEEDS, TARGETS
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(SEEDS.get(name, [])):
            (Path(folder) / str(number)).write_bytes(seed)
        limits = [f"-runs={runs}", f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", f"-seed={SEED}"]
        atheris.Setup(
            [sys.argv[0], *limits, f"-artifact_prefix={folder}/", "-print_final_stats=1", folder], TARGETS[name]
        )
        atheris.Fuzz()


def searched(name: str, runs: int, seconds: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.fuzz.guided", "--inside", name, "--runs", str(runs)]
    done = subprocess.run(
        [*command, "--seconds", str(seconds)], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    lines = re.findall(r"cov: (\d+) ft: \d+ corp: (\d+)/", done.stderr)
    found = re.search(r"stat::number_of_executed_units: +(\d+)", done.stderr)
    row = {
        "target": name,
        "runs": int(found[1]) if found else 0,
        "branches_at_first": int(lines[0][0]) if lines else 0,
        "branches": int(lines[-1][0]) if lines else 0,
        "corpus": int(lines[-1][1]) if lines else 0,
        "broken": done.returncode != 0,
    }
    if row["broken"]:
        print(done.stdout[-4000:], done.stderr[-4000:], sep="\n")
    return row


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--targets", nargs="+", help="(default all)")
    add("--runs", type=int, default=200_000, help="of each target at most (default 200,000)")
    add("--seconds", type=int, default=60, help="for each target at most (default 60)")
    add("--out", type=Path, default=RESULTS)
    add("--inside", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.inside:
        search(given.inside, given.runs, given.seconds)
    from benchmarks.fuzz.targets import TARGETS

    rows = []
    for name in given.targets or TARGETS:
        rows.append(searched(name, given.runs, given.seconds))
        print(" ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    write_report(given.out, {"rows": rows})
    return int(any(row["broken"] or not row["runs"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
