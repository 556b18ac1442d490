"""The only part of the engine that touches the device: states, batches of windows in, rows of output out.

One state for each pool, with a place more than there are slots: spare rows of a batch point to it and change nobody.
Batches have one of a few sizes, all of them warmed up, since a new shape costs up to seconds.
"""

from typing import Any

import numpy as np
import torch

from streaming.codec import Codec
from streaming.engine.scheduler import Pool
from streaming.lane import DecoderLane, EncoderLane, Window
from streaming.stepper import Stepper


class Runner:
    """Steps the sessions of `pools`, up to `slots` in each, on the codec's device."""

    def __init__(self, codec: Codec, pools: list[Pool], slots: int, batch_sizes: tuple[int, ...]) -> None:
        self.slots = slots
        self.batch_sizes = batch_sizes
        self._device = codec.device
        self._steppers: dict[Pool, Stepper] = {}
        self._states: dict[Pool, Any] = {}
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
        """Computes every shape that can occur, on the spare slot."""
        for pool, stepper in self._steppers.items():
            x = np.zeros(stepper.window_shape, np.float32 if pool.kind == "encode" else np.int64)
            window = Window(x, pool.config.window_frames, pool.config.chunk_frames, slice(0, 0))
            for size in self.batch_sizes:
                for _ in range(2):
                    self.step(pool, [self.slots] * size, [window] * size, size)
            self.reset(pool, self.slots)

    def step(self, pool: Pool, slots: list[int], windows: list[Window], size: int) -> np.ndarray:
        """One step at batch `size` >= len(windows); rows of output in the order of `windows`."""
        stepper = self._steppers[pool]
        x = np.zeros((size, *stepper.window_shape), windows[0].x.dtype)
        vectors = np.zeros((3, size), np.int64)
        vectors[0] = self.slots
        for row, (slot, window) in enumerate(zip(slots, windows, strict=True)):
            x[row] = window.x
            vectors[:, row] = slot, window.valid, window.commit
        at = torch.from_numpy(vectors).to(self._device)
        output = stepper.step(torch.from_numpy(x).to(self._device), self._states[pool], at[0], at[1], at[2])
        return output[: len(windows)].cpu().numpy()

    def reset(self, pool: Pool, slot: int) -> None:
        """That slot is as new."""
        self._steppers[pool].reset(self._states[pool], torch.tensor([slot], device=self._device))
