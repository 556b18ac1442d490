"""State of the software device."""

import threading
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


class CaptureError(RuntimeError):
    """Raised for an operation that a CUDA graph cannot record."""


@dataclass
class SoftDevice:
    """Once `fault` is set, every call fails with it, as after an illegal access."""

    fault: str | None = None
    syncs: list[str] = field(default_factory=list)
    """Operations that made the host wait, or copied from or to pageable memory."""
    operations: int = 0
    capture: Any | None = None
    graphs: list[Any] = field(default_factory=list)
    pinned: list[Tensor] = field(default_factory=list)

    def call(self) -> None:
        """Raises the error of a broken device, or of a capture in another thread."""
        if self.fault is not None:
            raise RuntimeError(f"CUDA error: {self.fault}")
        capture = self.capture
        if capture is not None and capture.thread != threading.get_ident() and capture.error_mode == "global":
            raise CaptureError("operation not permitted when another thread captures in global mode")

    def wait(self, why: str) -> None:
        """Raises in a capture."""
        self.call()
        self.syncs.append(why)
        if self.recording is not None:
            raise CaptureError(f"operation not permitted when stream is capturing: {why}")

    @property
    def recording(self) -> Any | None:
        """The graph that this thread captures."""
        capture = self.capture
        return capture if capture is not None and capture.thread == threading.get_ident() else None

    def pin(self, tensor: Tensor) -> Tensor:
        self.pinned.append(tensor)
        return tensor

    def is_pinned(self, tensor: Tensor) -> bool:
        pointer = tensor.untyped_storage().data_ptr()
        return any(one.untyped_storage().data_ptr() == pointer for one in self.pinned)


device = SoftDevice()
