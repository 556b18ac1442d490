"""The only part of the engine that touches the device: states, batches of windows in, rows of output out.

One state for each pool, with a place more than there are slots: spare rows of a batch go on with a stream of zeros
there and change nobody.
Batches have one of a few sizes, all of them warmed up, since a new shape costs up to seconds; on CUDA, warming up
captures each as a graph that is replayed from then on.
"""

from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from streaming.codec import Codec
from streaming.engine.capture import CapturedStep, Captures
from streaming.engine.scheduler import Pool
from streaming.lane import DecoderLane, EncoderLane, Window
from streaming.stepper import Stepper

MEASURED_STEPS = 5


class Runner:
    """Steps the sessions of `pools`, up to `slots` in each, on the codec's device."""

    def __init__(self, codec: Codec, pools: list[Pool], slots: int, batch_sizes: tuple[int, ...]) -> None:
        self.slots = slots
        self.batch_sizes = batch_sizes
        self._device = codec.device
        self._steppers: dict[Pool, Stepper] = {}
        self._states: dict[Pool, Any] = {}
        self._captured: dict[tuple[Pool, int], CapturedStep] = {}
        for pool in pools:
            stepper = codec.encoder(pool.config) if pool.kind == "encode" else codec.decoder(pool.config)
            self._steppers[pool] = stepper
            self._states[pool] = stepper.new_state(slots + 1)

    @property
    def pools(self) -> list[Pool]:
        """What can be stepped."""
        return list(self._steppers)

    def lane(self, pool: Pool) -> EncoderLane | DecoderLane:
        """The host's half of a new session of `pool`."""
        return EncoderLane(pool.config) if pool.kind == "encode" else DecoderLane(pool.config)

    def warm_up(self) -> None:
        """Computes every shape that can occur, on the spare slot; on CUDA, captures it."""
        shared = Captures(self._device) if self._device.type == "cuda" else None
        for pool, stepper in self._steppers.items():
            window = self._silence(pool)
            for size in self.batch_sizes:
                if shared is not None:
                    x_and_at = self._batch(pool, [self.slots] * size, [window] * size, size)
                    self._captured[pool, size] = CapturedStep(stepper, self._states[pool], *x_and_at, shared)
                for _ in range(2):
                    self.step(pool, [self.slots] * size, [window] * size, size)
            self.reset(pool, self.slots)

    def measure(self, clock: Callable[[], float], at_most_s: float) -> dict[Pool, dict[int, float]]:
        """Seconds of a steady step for every pool and batch size, by `clock`; about `at_most_s` in all.

        Medians of a few steps on the spare slot, after `warm_up`; of one step where more would take too long.
        """
        share_s = at_most_s / (len(self._steppers) * len(self.batch_sizes))
        return {
            pool: {size: self._step_s(pool, size, clock, share_s) for size in self.batch_sizes} for pool in self.pools
        }

    def _step_s(self, pool: Pool, size: int, clock: Callable[[], float], at_most_s: float) -> float:
        spare, windows = [self.slots] * size, [self._silence(pool)] * size
        times: list[float] = []
        while len(times) < MEASURED_STEPS and sum(times) + max(times, default=0.0) <= at_most_s:
            begin_s = clock()
            self.step(pool, spare, windows, size)
            times.append(clock() - begin_s)
        self.reset(pool, self.slots)
        return median(times)

    def _silence(self, pool: Pool) -> Window:
        """A steady window whose output nobody wants."""
        x = np.zeros(self._steppers[pool].window_shape, np.float32 if pool.kind == "encode" else np.int64)
        return Window(x, pool.config.window_frames, pool.config.chunk_frames, slice(0, 0))

    def step(self, pool: Pool, slots: list[int], windows: list[Window], size: int) -> np.ndarray:
        """One step at batch `size` >= len(windows); rows of output in the order of `windows`."""
        x, at = self._batch(pool, slots, windows, size)
        captured = self._captured.get((pool, size))
        if captured is not None:
            output = captured(x, at)
        else:
            state = self._states[pool]
            output = self._steppers[pool].step(x.to(self._device), state, *at.to(self._device)).cpu()
        return output[: len(windows)].numpy()

    def _batch(self, pool: Pool, slots: list[int], windows: list[Window], size: int) -> tuple[Tensor, Tensor]:
        """x (size, *window_shape), and slots, valid and commit as (3, size), spare rows filled up; on the host."""
        x = np.zeros((size, *self._steppers[pool].window_shape), windows[0].x.dtype)
        at = np.empty((3, size), np.int64)
        at[:] = np.array([self.slots, pool.config.window_frames, pool.config.chunk_frames])[:, None]
        for row, (slot, window) in enumerate(zip(slots, windows, strict=True)):
            x[row] = window.x
            at[:, row] = slot, window.valid, window.commit
        return torch.from_numpy(x), torch.from_numpy(at)

    def reset(self, pool: Pool, slot: int) -> None:
        """That slot is as new."""
        self._steppers[pool].reset(self._states[pool], torch.tensor([slot], device=self._device))

    def snapshot(self, pool: Pool, slot: int) -> bytes:
        """That slot as bytes that name model and configuration."""
        return self._steppers[pool].snapshot(self._states[pool], slot)

    def restore(self, pool: Pool, slot: int, snapshot: bytes) -> None:
        """That slot as it was when the snapshot was taken. Raises SnapshotError, and then nothing has changed."""
        self._steppers[pool].restore(self._states[pool], slot, snapshot)
