"""Layers that torch needs many operations for, as one each: native.cpp, compiled once for this machine's CPU.

Where a C++ compiler is found, the first model that is stepped on a CPU has the file compiled (20 s) into the user's
cache, under a name that tells source, torch and CPU apart. Where none is, the same layers are computed with torch's own
operations: to 1e-5 the same values, in up to half as much time again.
"""

import hashlib
import logging
import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("native.cpp")
FLAGS = ("-std=c++20", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")
DEADLINE_S = 300
LANES = 8
HEAD_STEP = 16
"""Attention is computed for heads of a multiple of it."""
FEW_CHANNELS = 32
"""Up to so many a convolution is too narrow for a matrix product."""

logger = logging.getLogger(__name__)
_loading = Lock()


def operations(weight: Tensor) -> Any:
    """`torch.ops.neucodec` where layers with such weights are computed natively, else None."""
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return None
    with _loading:
        return _loaded()


@cache
def _loaded() -> Any:
    try:
        torch.ops.load_library(_library())
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        logger.warning("steps on the CPU take longer than they could: %s", error)
        return None
    return torch.ops.neucodec


def _library() -> Path:
    """Where the compiled file is; compiles it if it is not there."""
    cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    library = cached / "neucodec-streaming" / f"native-{_fingerprint()}.so"
    if not library.exists():
        compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))), None)
        if compiler is None:
            raise FileNotFoundError("no C++ compiler (c++, g++, clang++, or what CXX names) is there")
        logger.info("compiling %s, once for this machine", SOURCE.name)
        library.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=library.parent) as folder:  # another process may do the same
            built = Path(folder) / library.name
            _compile(compiler, built)
            built.replace(library)
    return library


def _compile(compiler: str, built: Path) -> None:
    torch_folder = Path(torch.__file__).parent
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    places = (f"-I{torch_folder / 'include'}", f"-L{torch_folder / 'lib'}")
    command = [compiler, *FLAGS, abi, *places, str(SOURCE), "-o", str(built), "-ltorch_cpu", "-lc10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    if done.returncode:
        raise RuntimeError(f"{compiler} does not compile {SOURCE.name}: {done.stderr.strip()[:500]}")


def _fingerprint() -> str:
    """Of all that the compiled file depends on: it is not to run on a CPU that knows other instructions."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else [platform.processor()]
    features = next((line for line in lines if line.startswith(("flags", "Features"))), lines[0] if lines else "")
    parts = (SOURCE.read_text(), " ".join(FLAGS), torch.__version__, platform.machine(), features)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
