"""`python -m benchmarks.gpu_report` (`make gpu-report`): all measurements of a GPU in one command.

Stages run one after another, each in its own process with a time limit; each finding is written at once to
OUT/STAGE.jsonl, and all of them to OUT/report.json and OUT/report.md. The exit code is 1 if a stage or a check failed.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common.surroundings import RESULTS_FOLDER, surroundings

if TYPE_CHECKING:
    from benchmarks.gpu_report.stages import ReportSize

ROWS = (1, 4, 16, 64, 256, 1024)
ORDER = (
    "machine", "replay", "laws", "against_cpu", "attention", "steps", "kernels", "resets", "start_up", "capacity",
    "live",
)  # fmt: skip


def run_stage(name: str, size: "ReportSize", out: Path) -> None:
    """Writes a line for every finding, in this process."""
    import torch

    from benchmarks.gpu_report.stages import STAGES

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # as the server by default
    find, _ = STAGES[name]
    with (out / f"{name}.jsonl").open("w") as file:
        for what, value in find(size):
            print(f"  {what}: {value}", flush=True)
            file.write(json.dumps([what, value], default=str) + "\n")
            file.flush()


def report(found: dict[str, dict[str, Any]]) -> str:
    lines = ["# GPU report", "", "Made by `python -m benchmarks.gpu_report`.", ""]
    for stage, findings in found.items():
        lines += [f"## {stage}", "", "| what | found |", "|---|---|"]
        for what, value in findings.items():
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            lines.append(f"| {what} | {shown.replace('|', '/')} |")
        lines.append("")
    return "\n".join(lines)


def read(out: Path, stages: Sequence[str]) -> dict[str, dict[str, Any]]:
    files = {stage: out / f"{stage}.jsonl" for stage in stages}
    return {
        stage: dict(json.loads(line) for line in file.read_text().splitlines())
        for stage, file in files.items()
        if file.exists()
    }


def run_all(command: Sequence[str], stages: Sequence[str], limits_s: dict[str, float], out: Path) -> bool:
    """Runs every stage as `command --stage NAME`; returns whether all passed."""
    out.mkdir(parents=True, exist_ok=True)
    ends: dict[str, str] = {}
    for stage in stages:
        (out / f"{stage}.jsonl").unlink(missing_ok=True)
        print(f"{stage}:", flush=True)
        ends[stage] = _ended([*command, "--stage", stage], limits_s[stage])
        found = {"run": surroundings() | ends} | read(out, stages)
        (out / "report.json").write_text(json.dumps(found, indent=1) + "\n")
        (out / "report.md").write_text(report(found))
    wrong = [f"{stage}: {end}" for stage, end in ends.items() if end != "done"]
    wrong += [
        f"{stage}: {what}"
        for stage, part in read(out, stages).items()
        for what, value in part.items()
        if value is False
    ]
    print("\n".join(wrong) or "all stages passed", f"\nwritten to {out}")
    return not wrong


def _ended(command: Sequence[str], limit_s: float) -> str:
    """Ends the stage with all that it started after `limit_s`; returns "done" or the failure."""
    process = subprocess.Popen(command, process_group=0)
    try:
        code = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return f"FAILED: stopped after {limit_s:.0f} s"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return "done" if code == 0 else f"FAILED with exit code {code}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="a folder, bundled name or hub id; default: full size with random weights")
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--stages", nargs="+", choices=ORDER, default=ORDER)
    parser.add_argument("--out", type=Path, default=RESULTS_FOLDER / "gpu")
    parser.add_argument("--stage", choices=ORDER, help="run only this stage, in this process; needs --model")
    given = parser.parse_args()
    from benchmarks.cost import model_folder
    from benchmarks.gpu_report.stages import STAGES, ReportSize

    if given.stage:
        run_stage(given.stage, ReportSize(given.model, tuple(given.rows)), given.out)
        return 0
    with model_folder(given.model) as model:
        command = [sys.executable, "-m", "benchmarks.gpu_report", "--model", model, "--out", str(given.out)]
        limits_s = {name: float(limit_s) for name, (_, limit_s) in STAGES.items()}
        is_good = run_all([*command, "--rows", *map(str, given.rows)], given.stages, limits_s, given.out)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
