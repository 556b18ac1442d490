"""A stage of the GPU report on the software device: give OUT --stage NAME."""

import sys
from pathlib import Path

from benchmarks.gpu_report import stages
from benchmarks.gpu_report.__main__ import run_stage
from tests.conftest import ROOT
from tests.soft_cuda import installed

if __name__ == "__main__":
    out, _, name = sys.argv[1:]
    stages.REPEATS = 1
    with installed():
        run_stage(name, str(ROOT / "tests" / "data" / "neucodec-mini"), (1, 2), Path(out))
