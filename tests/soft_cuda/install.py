"""Puts the software device in place of `torch.cuda` and takes it away again."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.autograd.grad_mode import inference_mode

from neucodec_streaming.kernels import gpu, native
from tests.soft_cuda.device import SoftDevice, device
from tests.soft_cuda.graphs import SoftCapture, SoftEvent, SoftGraph, SoftStream, SoftStreamContext
from tests.soft_cuda.tensor import SoftMode

GUARD = Path(__file__).with_name("guard.cpp")
MEMORY_BYTES = 80 << 30
_threads = threading.local()
_installed = False


@contextmanager
def installed() -> Iterator[SoftDevice]:
    """Makes `torch.cuda` the software device, in this thread and in every one that calls `torch.cuda.set_device`."""
    global _installed
    torch.ops.load_library(native.library([GUARD]))
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    device.__init__()  # type: ignore[misc]
    with ExitStack() as stack:
        for name, value in _CUDA.items():
            stack.enter_context(patch.object(torch.cuda, name, value))
        stack.enter_context(patch.object(Tensor, "pin_memory", _pin_memory))
        stack.enter_context(patch.object(gpu, "_loaded", lambda where: None))  # kernels would need a GPU
        # Wrappers have no views in inference mode.
        stack.enter_context(patch.object(inference_mode, "__enter__", _enter_no_grad))
        stack.enter_context(patch.object(inference_mode, "__exit__", _exit_no_grad))
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        _installed = True
        try:
            _enter_thread()
            yield device
        finally:
            _installed = False
            _leave_thread()
            torch.__future__.set_overwrite_module_params_on_conversion(overwrites)


def _enter_thread(where: Any = None) -> None:
    if _installed and not getattr(_threads, "mode", None):
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") goes by way of the CPU
        _threads.mode = SoftMode()
        _threads.mode.__enter__()


def _leave_thread() -> None:
    mode, _threads.mode = _threads.mode, None
    mode.__exit__(None, None, None)
    torch._C._set_only_lift_cpu_tensors(False)


def _pin_memory(tensor: Tensor, where: Any = None) -> Tensor:
    if device.recording is not None:
        device.wait("pin_memory")
    return device.pin(tensor.clone())


def _enter_no_grad(self: Any) -> None:
    self._no_grad = torch.no_grad()
    self._no_grad.__enter__()


def _exit_no_grad(self: Any, *error: Any) -> None:
    self._no_grad.__exit__(*error)


_CUDA: dict[str, Any] = {
    "_lazy_init": lambda: None,
    "is_available": lambda: True,
    "is_initialized": lambda: True,
    "synchronize": lambda where=None: device.wait("synchronize"),
    "empty_cache": lambda: None,
    "set_device": _enter_thread,
    "current_device": lambda: 0,
    "device_count": lambda: 1,
    "get_device_name": lambda where=None: "software",
    "mem_get_info": lambda where=None: (MEMORY_BYTES, MEMORY_BYTES),
    "memory_allocated": lambda where=None: 0,
    "max_memory_allocated": lambda where=None: 0,
    "reset_peak_memory_stats": lambda where=None: None,
    "Stream": SoftStream,
    "Event": SoftEvent,
    "stream": SoftStreamContext,
    "current_stream": SoftStreamContext.current,
    "CUDAGraph": SoftGraph,
    "graph": SoftCapture,
    "graph_pool_handle": object,
}
