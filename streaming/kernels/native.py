"""Layers that need many torch operations, as one each: native.cpp, attention.cpp and int8.cpp, compiled once.

If a C++ compiler is found, the first stepped CPU model compiles the files (20 s) into the user's cache (XDG_CACHE_HOME,
~/.cache), under a name that identifies source, torch and type of CPU; `python -m neucodec_streaming.kernels.native`
does it in advance. Without a compiler, torch's own operations compute the same values to 1e-5, in 1.4 to 2.5 times the
time (`benchmarks.native`).
"""

import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

import torch
from torch import Tensor

SOURCES = [
    Path(__file__).with_name(name)
    for name in ("native.cpp", "attention.cpp", "int8.cpp", "int8_products.h", "common.h")
]
FLAGS = ("-std=c++20", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")
MARCH = {"AVX2": ("-march=x86-64-v3",), "AVX512": ("-march=x86-64-v4",)}
COMPILERS = ("c++", "g++", "clang++")
DEADLINE_S = 300
LANES = 8
HEAD_STEP = 16
"""Compiled attention needs a head width that is a multiple of this."""
FEW_CHANNELS = 32
"""Convolutions with at most this many channels are too narrow for a matrix product."""

logger = logging.getLogger(__name__)
_loading = Lock()


def operations(weight: Tensor) -> Any:
    """`torch.ops.neucodec` if it computes layers with such weights natively, else None."""
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return None
    with _loading:
        return _loaded()


@cache
def _loaded() -> Any:
    try:
        torch.ops.load_library(library())
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        logger.warning("native kernels are not available, so steps on the CPU are slower: %s", error)
        return None
    return torch.ops.neucodec


def library(sources: Sequence[Path] = SOURCES) -> Path:
    """The compiled file, named after the first source; compiles it if missing."""
    flags = (*FLAGS, *MARCH.get(torch.backends.cpu.get_cpu_capability(), ()))
    parts = (*(source.read_text() for source in sources), *flags, torch.__version__, platform.machine(), sys.platform)
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    path = cache_folder() / f"{sources[0].stem}-{digest}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent) as folder:  # another process may do the same
            built = Path(folder) / path.name
            _compile(sources, built, flags)
            built.replace(path)
    check_owner(path)
    return path


def cache_folder() -> Path:
    """The user's cache for data of this machine."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neucodec-streaming"


def check_owner(path: Path) -> None:
    """Raises PermissionError for a file that another user may have written."""
    if path.stat().st_uid not in (0, os.getuid()):
        raise PermissionError(f"{path} belongs to another user: remove it, or set XDG_CACHE_HOME")


def _compile(sources: Sequence[Path], built: Path, flags: tuple[str, ...]) -> None:
    names = (os.environ["CXX"],) if "CXX" in os.environ else COMPILERS
    compiler = next(filter(None, map(shutil.which, names)), None)
    if compiler is None:
        raise FileNotFoundError(f"no C++ compiler found (tried {', '.join(names)}): install one, or set CXX")
    logger.info("compiling %s (only once on this machine)", built.name)
    torch_folder = Path(torch.__file__).parent
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    places = (f"-I{torch_folder / 'include'}", f"-L{torch_folder / 'lib'}")
    units = [str(source) for source in sources if source.suffix == ".cpp"]
    command = [compiler, *flags, abi, *places, *units, "-o", str(built), "-ltorch_cpu", "-lc10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    if done.returncode:
        raise RuntimeError(f"{compiler} failed to compile {built.name}: {done.stderr.strip()[:500]}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(_loaded() is None)  # the log has the reason
