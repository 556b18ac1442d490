"""Streams, events and graphs of the software device."""

import threading
import time
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from tests.soft_cuda.device import device

POISON = -(1 << 40)
"""An index beyond the size of any tensor."""


class SoftGraph:
    """Replaces `torch.cuda.CUDAGraph`: the operations of a capture, on the memory that they used in it."""

    def __init__(self) -> None:
        self.operations: list[tuple[Any, Any, Any, list[Tensor] | None]] = []
        self.memory: list[Tensor] = []
        self.pool: object = None
        self.thread = 0
        self.error_mode = ""
        self.is_captured = False
        self.replays = 0

    def record(self, func: Any, args: Any, kwargs: Any, *, writes: bool) -> Any:
        """Computes only the shapes of new tensors."""
        if writes:
            self.operations.append((func, args, kwargs, None))
            return None
        result = func(*args, **kwargs)
        made = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        given = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)} - {0}
        if not all(x.untyped_storage().data_ptr() in given for x in made):  # no view
            self.operations.append((func, args, kwargs, made))
            self.memory += made
        return result

    def poison(self) -> None:
        """A later replay cannot mistake stale values for its own."""
        for tensor in self.memory:
            if tensor.is_floating_point() or tensor.is_complex():
                tensor.fill_(float("nan"))
            elif tensor.dtype == torch.bool:
                tensor.logical_not_()
            else:
                tensor.fill_(POISON if tensor.dtype == torch.int64 else torch.iinfo(tensor.dtype).min)

    def replay(self) -> None:
        assert self.is_captured, "replayed before its capture ended"
        device.call()
        self.replays += 1
        with torch.no_grad():
            for graph in device.graphs:
                if graph.pool is self.pool:
                    graph.poison()
            for func, args, kwargs, made in self.operations:
                result = func(*args, **kwargs)
                for old, new in zip(made or [], tree_leaves(result) if made else [], strict=True):
                    assert (old.shape, old.stride()) == (new.shape, new.stride()), f"{func}: shapes follow from values"
                    old.copy_(new)


class SoftCapture:
    """Replaces `torch.cuda.graph`."""

    def __init__(
        self, cuda_graph: SoftGraph, pool: object = None, stream: Any = None, capture_error_mode: str = "global"
    ) -> None:
        assert stream is not None, "a capture needs a stream of its own"
        self._graph, self._stream = cuda_graph, SoftStreamContext(stream)
        cuda_graph.pool, cuda_graph.error_mode = pool, capture_error_mode

    def __enter__(self) -> None:
        assert device.capture is None, "one capture at a time"
        device.call()
        self._graph.thread = threading.get_ident()
        self._stream.__enter__()
        device.capture = self._graph

    def __exit__(self, *error: Any) -> None:
        device.capture = None
        self._stream.__exit__()
        self._graph.is_captured = error[0] is None
        device.graphs.append(self._graph)


class SoftStream:
    """Replaces `torch.cuda.Stream`: work is done when it is submitted."""

    def __init__(self, where: Any = None) -> None:
        self.device = torch.device("cuda", 0)

    def wait_stream(self, other: "SoftStream") -> None:
        assert isinstance(other, SoftStream)

    def wait_event(self, event: "SoftEvent") -> None:
        assert isinstance(event, SoftEvent)

    def synchronize(self) -> None:
        device.wait("stream.synchronize")


class SoftStreamContext:
    """Replaces `torch.cuda.stream`."""

    _current = threading.local()
    _default = SoftStream()

    def __init__(self, stream: SoftStream) -> None:
        self._stream = stream

    def __enter__(self) -> None:
        self._before = self.current()
        self._current.stream = self._stream

    def __exit__(self, *_: Any) -> None:
        self._current.stream = self._before

    @classmethod
    def current(cls, where: Any = None) -> SoftStream:
        return getattr(cls._current, "stream", cls._default)


class SoftEvent:
    """Replaces `torch.cuda.Event`."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False) -> None:
        self._at_s = 0.0

    def record(self, stream: Any = None) -> None:
        self._at_s = time.perf_counter()

    def query(self) -> bool:
        device.call()
        return True

    def synchronize(self) -> None:
        device.wait("event.synchronize")

    def elapsed_time(self, end: "SoftEvent") -> float:
        return (end._at_s - self._at_s) * 1000
