"""Triton's kernels compile for GPUs; its interpreter, which the other tests use, accepts more than its compiler."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytest.importorskip("triton")
COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from neucodec_streaming.kernels import triton_kernels as kernels

NUMBERS = {"scale": "fp32"} | dict.fromkeys(["up", "down", "alpha", "by_beta"], "*fp32")
NUMBERS |= dict.fromkeys(["slots", "position", "valid", "commit"], "*i64")
NUMBERS |= dict.fromkeys(
    ["length", "channels", "slot_stride", "unit", "frames", "heads", "context", "left", "distances"], "i32"
)
CASES = [
    ("fp32", kernels._snake, {"SEGMENT": kernels.SEGMENT, "CHANNELS": 64}),
    ("bf16", kernels._snake, {"SEGMENT": kernels.SEGMENT, "CHANNELS": 32, "unit": 1}),
    ("fp32", kernels._attend, {"HAS_DISTANCE": True, "WIDTH": 64, "ROWS": 16, "KEYS": kernels.KEYS}),
    ("bf16", kernels._attend, {"HAS_DISTANCE": True, "WIDTH": 64, "ROWS": 16, "KEYS": kernels.KEYS}),
    ("bf16", kernels._attend, {"HAS_DISTANCE": False, "WIDTH": 64, "ROWS": 16, "KEYS": kernels.KEYS}),
]
for dtype, kernel, constants in CASES:
    types = {name: NUMBERS.get(name, "*" + dtype) for name in kernel.arg_names} | dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, types, constexprs=constants)
    assert triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 2}).asm["cubin"]
"""


@pytest.mark.slow
def test_every_kernel_compiles_for_a_gpu(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", COMPILE], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
