"""A software CUDA device over a CPU build of torch, which finds faults in code written for CUDA.

Tensors claim to be on `cuda:0` and hold a CPU tensor. Operations that a device would refuse raise: those that mix
devices, and inside a capture those that wait for the device or copy from pageable memory. A captured graph replays its
recorded operations on its recorded memory, which is overwritten first, since other graphs may have used it. It proves
nothing about kernels, speed, or the order of streams.
"""

from tests.soft_cuda.device import device
from tests.soft_cuda.install import installed

__all__ = ["device", "installed"]
