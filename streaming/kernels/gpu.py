"""Layers on CUDA as one Triton kernel each, if the kernels run and match torch's operations."""

import logging
from functools import cache
from importlib.util import find_spec
from threading import Lock
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)
_loading = Lock()


def operations(x: Tensor) -> Any:
    """The module `triton_kernels` if it computes layers with such tensors, else None."""
    if x.device.type != "cuda":
        return None
    with _loading:
        return _loaded(x.device)


@cache
def _loaded(device: torch.device) -> Any:
    if find_spec("triton") is None:
        return None
    try:
        from neucodec_streaming.kernels import triton_kernels

        with torch.inference_mode():
            triton_kernels.check(device)
    except Exception as error:  # a compiler for a device may fail in any way; torch's operations remain
        logger.warning("Triton kernels are not available, so steps on CUDA are slower: %s", error)
        return None
    return triton_kernels
