"""A CUDA device in software, over a CPU build of torch: for faults of code that is written for CUDA.

Tensors claim `cuda:0` and hold a CPU tensor. What a device would refuse raises: operations that mix devices, and
inside a capture whatever would wait for the device or copy from pageable memory. A captured graph replays the
operations that it recorded on the memory that it recorded, which is overwritten before: other graphs may have used it.
It proves nothing about kernels, speed, or the order of streams. `installed()` puts it in place of `torch.cuda`.
"""

from tests.soft_cuda.device import device
from tests.soft_cuda.install import installed

__all__ = ["device", "installed"]
