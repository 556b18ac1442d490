"""When, at which commit and on what a report was measured."""

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks.common.processes import family

ROOT = Path(__file__).resolve().parents[2]
RESULTS_FOLDER = ROOT / "benchmarks" / "results"


def surroundings() -> dict[str, str]:
    """When, at which commit and on what this ran."""
    git = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    device = f"{platform.machine()} {platform.system()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": git.stdout.strip(), "device": device}


def waited_s(pid: int) -> float:
    """Seconds that the threads of a process and of those it has started have stood in line for a processor; 0 where
    Linux does not tell."""
    tasks = (task for one in family(pid) for task in Path(f"/proc/{one}/task").glob("*/schedstat"))
    return sum(int(task.read_text().split()[1]) for task in tasks) / 1e9


def device() -> str:
    """The processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str:
    result = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return result.stdout.strip() or "unknown"
