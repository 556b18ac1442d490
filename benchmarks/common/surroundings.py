"""Date, commit and machine of a report, and its output."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.common.processes import family

ROOT = Path(__file__).resolve().parents[2]
RESULTS_FOLDER = ROOT / "benchmarks" / "results"


def surroundings() -> dict[str, Any]:
    """Reads torch's version without importing torch."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "device": _processor(),
        "cores": os.cpu_count(),
        "torch": version("torch"),
    }


def write_report(path: Path, found: Mapping[str, Any]) -> None:
    """Writes surroundings and findings (whose names win) as JSON, and prints the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(surroundings() | dict(found), indent=1) + "\n")
    print(f"written to {path}")


def waited_s(pid: int) -> float:
    """Seconds that the threads of a process and its children have waited for a processor; 0 except on Linux."""
    tasks = (task for one in family(pid) for task in Path(f"/proc/{one}/task").glob("*/schedstat"))
    return sum(int(task.read_text().split()[1]) for task in tasks) / 1e9


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
