"""The only part of the engine that touches the device: states, batches of windows in, rows of output out.

One state for each pool, with a place more than there are slots: spare rows of a batch go on with a stream of zeros
there and change nobody.
Batches have one of a few sizes, all of them warmed up, since a new shape costs up to seconds. Warming up also records
each, to be replayed from then on: on CUDA as a graph of kernels, on a CPU as one of operations.
"""

import logging
from collections.abc import Callable
from copy import copy
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neucodec_streaming.codec import Codec
from neucodec_streaming.config import START_FRAMES
from neucodec_streaming.decoder import Decoder
from neucodec_streaming.engine.cuda_graph import Captures, GraphedStep
from neucodec_streaming.engine.scheduler import Pool
from neucodec_streaming.engine.traced_step import TracedStep, packed_weights
from neucodec_streaming.stepper import Stepper
from neucodec_streaming.stream import Voice
from neucodec_streaming.windows import AnyWindower, DecoderWindower, EncoderWindower, Window

MEASURED_STEPS = 3
MAX_RECENT_VOICES = 8
"""Voices of clients that stay computed; a voice takes as much memory as a slot in each profile that used it."""

_log = logging.getLogger(__name__)


class Runner:
    """Steps the sessions of `pools`, up to `slots` in each, on the codec's device."""

    def __init__(self, codec: Codec, pools: list[Pool], slots: int, batch_sizes: tuple[int, ...]) -> None:
        self.slots = slots
        self.batch_sizes = batch_sizes
        self._device = codec.device
        self._steppers: dict[Pool, Stepper] = {}
        self._states: dict[Pool, Any] = {}
        self._captured: dict[tuple[Pool, int], GraphedStep] = {}
        self._traced: dict[tuple[Pool, int], TracedStep] = {}  # steady steps
        self._traced_any: dict[Pool, TracedStep] = {}
        self._held_voices: dict[bytes, Voice] = {}
        self._recent_voices: dict[bytes, Voice] = {}
        for pool in pools:
            stepper = codec.encoder(pool.config) if pool.kind == "encode" else codec.decoder(pool.config)
            self._steppers[pool] = stepper
            self._states[pool] = stepper.new_state(slots + 1)

    def replicate(self) -> "Runner":
        """After `warm_up`, on a CPU: another one, warm too, with states of its own, for a thread of its own."""
        other = copy(self)
        other._recent_voices = {}
        other._states = {pool: stepper.new_state(self.slots + 1) for pool, stepper in self._steppers.items()}
        other._traced = {(pool, size): step.on(other._states[pool]) for (pool, size), step in self._traced.items()}
        other._traced_any = {pool: step.on(other._states[pool]) for pool, step in self._traced_any.items()}
        return other

    @property
    def mixes(self) -> bool:
        """Whether starts and endings are stepped together with others; where steps are recorded, they are not."""
        return not self._traced

    @property
    def pools(self) -> list[Pool]:
        """What can be stepped."""
        return list(self._steppers)

    def windower(self, pool: Pool) -> AnyWindower:
        """The host's half of a new session of `pool`."""
        if pool.kind == "encode":
            return EncoderWindower(pool.config)
        return DecoderWindower(pool.config, self._decoder(pool).output_hop)

    def warm_up(self) -> None:
        """Computes every shape that can occur, on the spare slot, and records it."""
        if self._device.type == "cuda":
            self._capture()
            return
        for pool in self.pools:
            for size in self.batch_sizes:
                self._eager(pool, *self._silent_batch(pool, size))
        try:
            for pool in self.pools:
                self._trace(pool)
        except Exception:
            _log.warning("this PyTorch cannot trace steps; they are slower without", exc_info=True)
            self._traced.clear()
        for pool in self.pools:
            self.reset(pool, self.slots)

    def _capture(self) -> None:
        shared = Captures(self._device)
        for pool, stepper in self._steppers.items():
            for size in self.batch_sizes:
                captured = GraphedStep(stepper, self._states[pool], *self._silent_batch(pool, size), shared)
                self._captured[pool, size] = captured
            self.reset(pool, self.slots)

    def _trace(self, pool: Pool) -> None:
        """The steady step at every batch size, and any step at the smallest. Raises where PyTorch cannot."""
        stepper, state, smallest = self._steppers[pool], self._states[pool], self.batch_sizes[0]
        packed = packed_weights(lambda: self._eager(pool, *self._silent_batch(pool, smallest)))
        for size in self.batch_sizes:
            x_and_at = self._silent_batch(pool, size)
            self._traced[pool, size] = TracedStep(stepper, state, *x_and_at, packed, steady=True)
        x_and_at = self._silent_batch(pool, smallest)
        self._traced_any[pool] = TracedStep(stepper, state, *x_and_at, packed, steady=False)

    def _silent_batch(self, pool: Pool, size: int) -> tuple[Tensor, Tensor]:
        """A steady step of the spare slot alone."""
        return self._batch(pool, [self.slots] * size, [self._silence(pool)] * size, size)

    def measure(self, clock: Callable[[], float], at_most_s: float) -> dict[Pool, dict[int, float]]:
        """Seconds of a steady step for every pool and batch size, by `clock`; about `at_most_s` in all.

        Medians of a few steps on the spare slot, after `warm_up`; of one step where more would take too long. Where
        fewer rows took longer than more, that was noise, and they count as long as those.
        """
        share_s = at_most_s / (len(self._steppers) * len(self.batch_sizes))
        times: dict[Pool, dict[int, float]] = {}
        for pool in self.pools:
            for _ in range(START_FRAMES):
                self.step(pool, [self.slots], [self._silence(pool)], self.batch_sizes[0])
            measured = {size: self._step_s(pool, size, clock, share_s) for size in self.batch_sizes}
            times[pool] = {size: min(measured[other] for other in measured if other >= size) for size in measured}
            self.reset(pool, self.slots)
        return times

    def _step_s(self, pool: Pool, size: int, clock: Callable[[], float], at_most_s: float) -> float:
        times: list[float] = []
        while len(times) < MEASURED_STEPS and sum(times) + max(times, default=0.0) <= at_most_s:
            begin_s = clock()
            self.step(pool, [self.slots] * size, [self._silence(pool)] * size, size)
            times.append(clock() - begin_s)
        return median(times)

    def _silence(self, pool: Pool) -> Window:
        """A steady window whose output nobody wants."""
        x = np.zeros(self._steppers[pool].window_shape, np.float32 if pool.kind == "encode" else np.int64)
        return Window(x, pool.config.window_frames, pool.config.chunk_frames, slice(0, 0))

    def step(self, pool: Pool, slots: list[int], windows: list[Window], size: int) -> np.ndarray:
        """One step at batch `size` >= len(windows); rows of output in the order of `windows`.

        Where steps are recorded, one with starts or endings is one of the smallest size.
        """
        torch.get_num_threads()  # takes over what was set: before a thread has asked, oneDNN uses all cores in it
        x, rows = self._batch(pool, slots, windows, size)
        if (pool, size) not in self._traced:
            captured = self._captured.get((pool, size))
            output = self._eager(pool, x, rows) if captured is None else captured(x, rows)
        elif self._is_steady(pool, slots, windows):
            output = self._traced[pool, size](x, rows)
        else:
            assert size == self.batch_sizes[0], "starts and endings are stepped apart"
            output = self._traced_any[pool](x, rows)
        return output[: len(windows)].numpy()

    def _is_steady(self, pool: Pool, slots: list[int], windows: list[Window]) -> bool:
        """Whether every row is past its stream's start and not its ending."""
        whole = pool.config.window_frames, pool.config.chunk_frames
        is_past_start = self._states[pool].position.numpy()[slots].min() >= START_FRAMES
        return is_past_start and all((window.valid, window.commit) == whole for window in windows)

    def _eager(self, pool: Pool, x: Tensor, rows: Tensor) -> Tensor:
        return self._steppers[pool].step(x.to(self._device), self._states[pool], *rows.to(self._device)).cpu()

    def _batch(self, pool: Pool, slots: list[int], windows: list[Window], size: int) -> tuple[Tensor, Tensor]:
        """x (size, *window_shape), and slots, valid and commit as (3, size), spare rows filled up; on the host."""
        x = np.zeros((size, *self._steppers[pool].window_shape), windows[0].x.dtype)
        rows = np.empty((3, size), np.int64)
        rows[:] = np.array([self.slots, pool.config.window_frames, pool.config.chunk_frames])[:, None]
        for row, (slot, window) in enumerate(zip(slots, windows, strict=True)):
            x[row] = window.x
            rows[:, row] = slot, window.valid, window.commit
        return torch.from_numpy(x), torch.from_numpy(rows)

    def reset(self, pool: Pool, slot: int) -> None:
        """That slot is as new."""
        self._steppers[pool].reset(self._states[pool], torch.tensor([slot], device=self._device))

    def prime(self, pool: Pool, slot: int, voice: np.ndarray) -> AnyWindower:
        """That slot starts in a voice -> the windower that goes with it. The most recent voices are kept computed."""
        start = self._voice(voice).start(self._decoder(pool))
        self._steppers[pool].load(self._states[pool], slot, start.state)
        return start.windower.copy()

    def hold_voices(self, voices: list[np.ndarray]) -> None:
        """Computes voices for every decoder, and keeps them; to be called before `replicate`, which shares them."""
        for tokens in voices:
            voice = self._held_voices[tokens.tobytes()] = Voice(tokens)
            for pool in self.pools:
                if pool.kind == "decode":
                    voice.start(self._decoder(pool))

    def _decoder(self, pool: Pool) -> Decoder:
        stepper = self._steppers[pool]
        assert isinstance(stepper, Decoder)
        return stepper

    def _voice(self, tokens: np.ndarray) -> Voice:
        key = tokens.tobytes()
        if key in self._held_voices:
            return self._held_voices[key]
        voice = self._recent_voices.pop(key, None) or Voice(tokens)
        self._recent_voices[key] = voice  # the most recent last
        if len(self._recent_voices) > MAX_RECENT_VOICES:
            del self._recent_voices[next(iter(self._recent_voices))]
        return voice

    def snapshot(self, pool: Pool, slot: int) -> bytes:
        """That slot as bytes that name model and configuration."""
        return self._steppers[pool].snapshot(self._states[pool], slot)

    def restore(self, pool: Pool, slot: int, snapshot: bytes) -> None:
        """That slot as it was when the snapshot was taken. Raises SnapshotError, and then nothing has changed."""
        self._steppers[pool].restore(self._states[pool], slot, snapshot)
