"""A stage of the GPU report on the software device: give OUT --stage NAME."""

import sys
from pathlib import Path

from benchmarks.gpu_report import stages
from benchmarks.gpu_report.__main__ import run_stage
from benchmarks.gpu_report.stages import ReportSize
from tests.conftest import ROOT
from tests.soft_cuda import installed

SIZE = ReportSize(
    str(ROOT / "tests" / "data" / "neucodec-mini"), (1,), live=(("decode", 1),), live_s=1.0,
    laws=("tests/streaming/engine/test_on_cuda.py", "-k", "permanent"),
)  # fmt: skip

if __name__ == "__main__":
    out, _, name = sys.argv[1:]
    stages.REPEATS = 1
    stages.PYTHON = [sys.executable, "-m", "tests.benchmarks.gpu_report.on_soft_device"]
    with installed():
        run_stage(name, SIZE, Path(out))
