"""The engine's interface to a runner and its steps. No torch."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from neucodec_streaming.engine.scheduler import Pool
from neucodec_streaming.windows import Window, Windower


class StepRows:
    """A step in flight or done. `output` waits for it and returns its rows, of which the first `count` are valid;
    `is_done` tells whether it would wait.
    """

    def __init__(
        self, output: Callable[[], np.ndarray], count: int, is_done: Callable[[], bool] = lambda: True
    ) -> None:
        self._output = output
        self._count = count
        self.is_done = is_done

    def wait(self) -> np.ndarray:
        """The rows, in the order of the windows. On CUDA the second next step overwrites them."""
        return self._output()[: self._count]


class Steps(Protocol):
    """The engine's interface to a runner (`neucodec_streaming.engine.runner.Runner`)."""

    slots: int
    batch_sizes: tuple[int, ...]

    @property
    def max_edges(self) -> int | None: ...
    @property
    def depth(self) -> int: ...
    @property
    def pools(self) -> list[Pool]: ...
    def windower(self, pool: Pool) -> Windower: ...
    def launch(self, pool: Pool, slots: list[int], windows: list[Window], size: int) -> StepRows: ...
    def measure_step(self, pool: Pool, size: int, clock: Callable[[], float], at_most_s: float) -> float: ...
    def is_alive(self) -> bool: ...
    def reset(self, pool: Pool, slot: int) -> None: ...
    def prepare_voice(self, pool: Pool, voice: np.ndarray, max_steps: int) -> bool: ...
    def prime(self, pool: Pool, slot: int, voice: np.ndarray) -> Windower: ...
    def snapshot(self, pool: Pool, slot: int) -> bytes: ...
    def restore(self, pool: Pool, slot: int, snapshot: bytes) -> None: ...
