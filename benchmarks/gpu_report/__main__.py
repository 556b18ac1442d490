"""`python -m benchmarks.gpu_report --model FOLDER` (`make gpu-report`): all measurements of a GPU in one command.

Stages run one after another, each in its own process with a time limit; each finding is written at once to
OUT/STAGE.jsonl, and all of them to OUT/report.json and OUT/report.md. The exit code is 1 if a stage or a check failed.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.surroundings import RESULTS_FOLDER, surroundings
from neucodec_streaming import StreamConfig

ROWS = (1, 4, 16, 64, 256, 1024)
LIVE = (("decode", 1000), ("encode", 250))
ORDER = (
    "machine", "replay", "laws", "against_cpu", "attention", "steps", "kernels", "resets", "start_up", "capacity",
    "live",
)  # fmt: skip


def run_stage(name: str, model: str, rows: tuple[int, ...], out: Path) -> None:
    """Runs one stage in this process; writes a line for every finding."""
    from benchmarks.gpu_report.stages import STAGES, ReportSize

    find, _ = STAGES[name]
    size = ReportSize(model, rows, LIVE, StreamConfig(prior_weight=0))
    with (out / f"{name}.jsonl").open("w") as file:
        for what, value in find(size):
            print(f"  {what}: {value}", flush=True)
            file.write(json.dumps([what, value], default=str) + "\n")
            file.flush()


def report(found: dict[str, dict[str, Any]]) -> str:
    """Formats the findings as Markdown."""
    lines = ["# GPU report", "", "Made by `python -m benchmarks.gpu_report`.", ""]
    for stage, findings in found.items():
        lines += [f"## {stage}", "", "| what | found |", "|---|---|"]
        for what, value in findings.items():
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            lines.append(f"| {what} | {shown.replace('|', '/')} |")
        lines.append("")
    return "\n".join(lines)


def read(out: Path, stages: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Reads the findings that the stages have written so far."""
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
        try:
            code = subprocess.run([*command, "--stage", stage], timeout=limits_s[stage], check=False).returncode
            ends[stage] = "done" if code == 0 else f"FAILED with exit code {code}"
        except subprocess.TimeoutExpired:
            ends[stage] = f"FAILED: stopped after {limits_s[stage]:.0f} s"
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


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="nano", help="a folder, bundled name or hub id")
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--stages", nargs="+", choices=ORDER, default=ORDER)
    parser.add_argument("--out", type=Path, default=RESULTS_FOLDER / "gpu")
    parser.add_argument("--stage", choices=ORDER, help="run only this stage, in this process")
    given = parser.parse_args()
    rows = tuple(given.rows)
    if given.stage:
        run_stage(given.stage, given.model, rows, given.out)
        return 0
    from benchmarks.gpu_report.stages import STAGES

    command = [sys.executable, "-m", "benchmarks.gpu_report", "--model", given.model, "--out", str(given.out)]
    limits_s = {name: float(limit_s) for name, (_, limit_s) in STAGES.items()}
    return 0 if run_all([*command, "--rows", *map(str, rows)], given.stages, limits_s, given.out) else 1


if __name__ == "__main__":
    sys.exit(main())
