"""The engine's records of a session and of a step in flight. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neucodec_streaming.engine.scheduler import Pool
from neucodec_streaming.engine.stage import Stage
from neucodec_streaming.engine.steps import StepRows
from neucodec_streaming.snapshot import pack, unpack
from neucodec_streaming.windows import Window


@dataclass(eq=False)
class EngineSession:
    """One session: its stages in order, its number of clears, and whether its output is paused. `voice`: the latest."""

    stages: list[Stage]
    epoch: int = 0
    paused: bool = False
    voice: np.ndarray | None = None

    @property
    def is_live(self) -> bool:
        """Whether its input comes no faster than real time."""
        return all(stage.is_live for stage in self.stages)

    def snapshot(self, states: Sequence[bytes]) -> bytes:
        """The session as versioned bytes; `states`: those of its slots, in the order of the stages."""
        parts = [stage.snapshot(state) for stage, state in zip(self.stages, states, strict=True)]
        voice = np.zeros(0) if self.voice is None else self.voice
        return pack(self._identity, [voice, *parts])

    def restore(self, snapshot: bytes, now_s: float) -> list[bytes]:
        """Restores a snapshot and returns the states for its slots. Raises SnapshotError."""
        voice, *parts = unpack(self._identity, snapshot)
        self.voice = np.frombuffer(voice, np.uint16) if voice else None
        for stage in self.stages:
            stage.dirty = True
        return [stage.restore(part, now_s) for stage, part in zip(self.stages, parts, strict=True)]

    @property
    def _identity(self) -> dict[str, list[str]]:
        return {"stages": [stage.pool.kind for stage in self.stages]}


class StepInFlight:
    """A batch of `pool` launched at `launched_s`: the stages' windows, and which are last ones."""

    def __init__(self, pool: Pool, stages: list[Stage], launched_s: float) -> None:
        self.pool, self.stages, self.launched_s = pool, stages, launched_s
        self.windows: list[Window] = []
        self.last: list[bool] = []
        self.rows: StepRows | None = None
        for stage in stages:
            window = stage.windower.take()
            self.last.append(window is None)
            window = window or stage.windower.take_last()
            assert window is not None, "only stages with a window are scheduled"
            self.windows.append(window)
            stage.dirty, stage.in_flight = True, self
