"""Tensors of the software device, and the execution of operations on them."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.soft_cuda.device import device

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)
COPIES = {aten.copy_.default, aten._to_copy.default}
SYNCHRONISING = {
    "aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::is_nonzero", "aten::equal",
    "aten::masked_select", "aten::_unique2", "aten::unique_dim",
}  # fmt: skip
BY_INDEX = {"aten::index", "aten::index_put_", "aten::_index_put_impl_", "aten::index_put"}


class SoftTensor(torch.Tensor):
    """A tensor that claims to be on CUDA; `host` holds its values."""

    host: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, host: Tensor) -> "SoftTensor":
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, host.size(), strides=host.stride(), storage_offset=host.storage_offset(), dtype=host.dtype,
            layout=host.layout, device=CUDA, requires_grad=False,
        )  # fmt: skip
        made.host = host
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"SoftTensor({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class SoftMode(TorchDispatchMode):
    """Wraps tensors created on CUDA, moved there, or pinned."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        is_soft = any(issubclass(kind, SoftTensor) for kind in types)
        if is_soft or _is_cuda(kwargs.get("device")) or kwargs.get("pin_memory"):
            return run(func, args, kwargs)
        return func(*args, **kwargs)


def run(func: Any, args: Any, kwargs: Any) -> Any:
    """Checks an operation, then computes it on the host, or records it in a capture."""
    device.call()
    device.operations += 1
    tensors = list(_tensors(args)) + list(_tensors(kwargs.values()))
    soft = [x for x in tensors if isinstance(x, SoftTensor)]
    to_soft = _is_cuda(kwargs["device"]) if kwargs.get("device") is not None else bool(soft)
    if func is aten.copy_.default:
        to_soft = isinstance(args[0], SoftTensor)
    crosses = func in COPIES and len({isinstance(x, SoftTensor) for x in tensors} | {to_soft}) > 1
    if crosses:
        _check_crossing(func, args, kwargs, tensors, to_soft)
    elif soft:
        _check_devices(func, args, tensors)
    host_args = [_on_host(x) for x in args]
    host_kwargs = {name: _on_host(x) for name, x in kwargs.items() if name != "pin_memory"}
    if _is_cuda(kwargs.get("device")):
        host_kwargs["device"] = torch.device("cpu")
    written = [args[n] if n < len(args) else kwargs.get(name) for n, name in _writes(func)]
    if device.recording is not None and to_soft:
        result = device.recording.record(func, host_args, host_kwargs, writes=bool(written))
    else:
        result = func(*host_args, **host_kwargs)
    if kwargs.get("pin_memory"):
        device.pin(result)
    if written:
        return written if isinstance(result, (tuple, list)) else written[0]
    return _on_device(result) if to_soft else result


def _tensors(values: Any) -> Iterator[Tensor]:
    """Includes those in lists."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _on_host(value: Any) -> Any:
    if isinstance(value, SoftTensor):
        return value.host
    return [_on_host(one) for one in value] if isinstance(value, (list, tuple)) else value


def _on_device(value: Any) -> Any:
    if isinstance(value, Tensor):
        return SoftTensor(value)
    return type(value)(_on_device(one) for one in value) if isinstance(value, (list, tuple)) else value


def _check_crossing(func: Any, args: Any, kwargs: Any, tensors: list[Tensor], to_soft: bool) -> None:
    """Counts a copy between host and device as a wait unless it is non-blocking and the host's memory is pinned."""
    is_async = kwargs.get("non_blocking") or (func is aten.copy_.default and len(args) > 2 and args[2])
    host = [x for x in tensors if not isinstance(x, SoftTensor)]
    if not (is_async and host and device.is_pinned(host[0])):
        direction = "to the device" if to_soft else "to the host"
        device.wait(f"copy {direction} of {[tuple(x.shape) for x in tensors]}")


def _check_devices(func: Any, args: Any, tensors: list[Tensor]) -> None:
    name = func._schema.name
    strangers = [tuple(x.shape) for x in tensors if not isinstance(x, SoftTensor)]
    if any(strangers):  # a CPU scalar, (), is allowed
        raise RuntimeError(
            f"Expected all tensors to be on the same device: {func} has {strangers} on cpu beside cuda:0"
        )
    if name in SYNCHRONISING:
        device.wait(name)
    if name in BY_INDEX:
        if any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]):
            device.wait(f"{name} by a mask")
        if len(args) > 2 and not isinstance(args[2], SoftTensor):
            device.wait(f"{name} of a number from the host")


@cache
def _writes(func: Any) -> list[tuple[int, str]]:
    """Returns positions and names of the arguments that an operation writes to."""
    pairs = enumerate(func._schema.arguments)
    return [(n, a.name) for n, a in pairs if a.alias_info is not None and a.alias_info.is_write]


def _is_cuda(where: Any) -> bool:
    return where is not None and torch.device(where).type == "cuda"
