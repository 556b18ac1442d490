"""Memory for weights: in huge pages where the system has them, and returned to the system when it is free."""

import ctypes
import math
import mmap
import sys
from contextlib import suppress

import torch
from torch import Tensor

CHUNK_BYTES = 32 << 20
ALIGNMENT_BYTES = 64


class HugePages:
    """Tensors in large blocks of memory that may be huge pages (Linux with transparent huge pages on `madvise`).

    A step reads all weights once, which is faster than through pages of 4 KiB: 33 GB/s instead of 17 on one core.
    """

    def __init__(self, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._chunk_bytes = chunk_bytes
        self._free = torch.empty(0, dtype=torch.uint8)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """An uninitialised tensor; on devices other than the CPU an ordinary one."""
        if device.type != "cpu":
            return torch.empty(shape, dtype=dtype, device=device)
        size = math.prod(shape) * dtype.itemsize
        if size > len(self._free):
            self._free = _mapped(max(size, self._chunk_bytes))
        taken = self._free[:size]
        self._free = self._free[aligned(size) :]
        return taken.view(dtype).view(shape)


def aligned(size: int) -> int:
    """The bytes that a tensor of `size` bytes takes."""
    return -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _mapped(size: int) -> Tensor:
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if sys.platform == "linux" else {}
    memory = mmap.mmap(-1, size, **private)  # shared memory has no huge pages
    with suppress(AttributeError, OSError):  # not on this system
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)


def keep_freed_memory() -> None:
    """Makes the C library keep freed blocks for the next step instead of returning them to the system.

    Steps free and allocate the same megabytes repeatedly, and touching fresh pages costs more than the arithmetic.
    glibc raises its thresholds to the size of a freed block, up to 32 MiB (mallopt(3), M_MMAP_THRESHOLD).
    """
    torch.empty(31 << 20, dtype=torch.uint8)


def give_back_freed_memory() -> None:
    """Makes the C library return freed blocks to the system after weights were released (glibc's malloc_trim)."""
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)
