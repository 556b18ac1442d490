"""The engine's only access to the device: states, batches of windows in, rows of output out.

Each pool has one state with a place more than there are slots: spare rows of a batch step zeros there and affect no
session. Batches have one of a few sizes, all warmed up, since a new shape takes up to seconds. Warming up also records
each step for replay: on CUDA as a graph of kernels, on a CPU as a graph of operations.
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
from neucodec_streaming.config import CODEBOOK_SIZE, START_FRAMES
from neucodec_streaming.decoder import Decoder
from neucodec_streaming.engine.cuda_graph import Captures, GraphedStep
from neucodec_streaming.engine.scheduler import Pool
from neucodec_streaming.engine.steps import StepRows
from neucodec_streaming.engine.traced_step import TracedStep, packed_weights
from neucodec_streaming.stepper import Stepper
from neucodec_streaming.stream import Voice
from neucodec_streaming.windows import DecoderWindower, EncoderWindower, Window, Windower

MEASURED_STEPS = 3
MIN_RECENT_VOICES = 8
"""Number of client voices kept computed, or one for each slot if that is more, so that clearing a stream never
recomputes its voice. A voice takes as much memory as a slot, in each profile that used it.
"""

_log = logging.getLogger(__name__)


class Runner:
    """Steps the sessions of `pools`, up to `slots` in each, on the codec's device.

    `cuda_graphs`: whether to capture steps on CUDA; "auto": if the first replay has the bits of the eager step.
    """

    def __init__(
        self, codec: Codec, pools: list[Pool], slots: int, batch_sizes: tuple[int, ...], cuda_graphs: str = "auto"
    ) -> None:
        self.slots = slots
        self.batch_sizes = batch_sizes
        self._device = codec.device
        self._cuda_graphs = cuda_graphs
        self._steppers: dict[Pool, Stepper] = {}
        self._states: dict[Pool, Any] = {}
        self._positions: dict[Pool, np.ndarray] = {}  # host copies of the states' positions
        self._traced: dict[tuple[Pool, int, bool], TracedStep] = {}  # by pool, batch size, and whether it is steady
        self._graphs: dict[tuple[Pool, int, bool], GraphedStep] = {}
        self._held_voices: dict[bytes, Voice] = {}
        self._recent_voices: dict[bytes, Voice] = {}
        for pool in pools:
            self._steppers[pool] = codec.encoder(pool.config) if pool.kind == "encode" else codec.decoder(pool.config)
        self._renew()

    def _renew(self) -> None:
        self._states = {pool: stepper.new_state(self.slots + 1) for pool, stepper in self._steppers.items()}
        self._positions = {pool: np.zeros(self.slots + 1, np.int64) for pool in self._steppers}

    def replicate(self) -> "Runner":
        """After `warm_up`, on a CPU: another warm runner with its own states, for another thread."""
        other = copy(self)
        other._recent_voices = {}
        other._renew()
        other._traced = {key: step.on(other._states[key[0]]) for key, step in self._traced.items()}
        return other

    @property
    def max_edges(self) -> int | None:
        """The largest batch that has only first and last windows; None if they share batches with steady windows."""
        if self._graphs:
            return self.batch_sizes[-1]
        return self.batch_sizes[0] if self._traced else None

    @property
    def depth(self) -> int:
        """Limit of steps in flight."""
        return 2 if self._graphs else 1

    @property
    def pools(self) -> list[Pool]:
        return list(self._steppers)

    def windower(self, pool: Pool) -> Windower:
        """The host side of a new session of `pool`."""
        if pool.kind == "encode":
            return EncoderWindower(pool.config)
        return DecoderWindower(pool.config, self._decoder(pool).output_hop)

    def warm_up(self) -> None:
        """Computes and records every possible shape, then resets all slots."""
        if self._device.type == "cuda":
            self._warm_up_cuda()
            return
        for pool in self.pools:
            for size in self.batch_sizes:
                self._eager(pool, *self._silent_batch(pool, size))
        try:
            for pool in self.pools:
                self._trace(pool)
        except Exception:
            _log.warning("this version of PyTorch cannot trace steps, so they are slower", exc_info=True)
            self._traced.clear()
        for pool in self.pools:
            self.reset(pool, self.slots)

    def _warm_up_cuda(self) -> None:
        if self._cuda_graphs != "off":
            try:
                self._capture()
                return
            except Exception:
                if self._cuda_graphs == "on" or not self.is_alive():
                    raise
                _log.warning("capturing steps as CUDA graphs failed, so they are slower", exc_info=True)
                self._graphs.clear()
        for pool in self.pools:
            for size in self.batch_sizes:
                self._eager(pool, *self._batch(pool, *self._noise(pool, size), size))
                self._reset_first(pool, size)

    def _capture(self) -> None:
        """Largest first: smaller graphs fit into the memory that they share with it."""
        shared, graphs = Captures(self._device), {}
        for size in reversed(self.batch_sizes):
            for pool, stepper in self._steppers.items():
                for steady in (False, True):
                    x, rows = self._batch(pool, *self._noise(pool, size), size)
                    graph = GraphedStep(stepper, self._states[pool], x, rows, shared, steady=steady)
                    self._reset_first(pool, size)
                    if self._cuda_graphs == "auto":
                        self._check_replay(pool, graph, x, rows, steady)
                    graphs[pool, size, steady] = graph
        self._graphs = graphs

    def _check_replay(self, pool: Pool, graph: GraphedStep, x: Tensor, rows: Tensor, steady: bool) -> None:
        """Raises RuntimeError if a replay differs from the eager step in a bit."""
        outputs = []
        for replays in (False, True):
            for _ in range(-(-START_FRAMES // pool.config.chunk_frames) if steady else 0):
                self._eager(pool, x, rows, steady=False)
            if replays:
                graph.next.x.copy_(x)
                graph.next.rows.copy_(rows)
                outputs.append(graph.launch().wait())
            else:
                outputs.append(self._eager(pool, x, rows, steady=steady).numpy())
            self._reset_first(pool, len(x))
        real = min(len(x), self.slots)  # spare rows share a slot, so their output depends on their order
        eager, replayed = (output[:real] for output in outputs)
        if not np.array_equal(eager[:, : replayed.shape[1]], replayed):
            raise RuntimeError(f"a replayed {pool.kind} step of {len(x)} rows differs from the eager one")

    def _trace(self, pool: Pool) -> None:
        """Records the steady step at every batch size, and any step at the smallest. Raises if PyTorch cannot."""
        stepper, state, smallest = self._steppers[pool], self._states[pool], self.batch_sizes[0]
        packed = packed_weights(lambda: self._eager(pool, *self._silent_batch(pool, smallest)))
        for size, steady in (*((size, True) for size in self.batch_sizes), (smallest, False)):
            x, rows = self._silent_batch(pool, size)
            self._traced[pool, size, steady] = TracedStep(stepper, state, x, rows, packed, steady)

    def _silent_batch(self, pool: Pool, size: int) -> tuple[Tensor, Tensor]:
        """A steady step of the spare slot only."""
        return self._batch(pool, [self.slots] * size, [self._window(pool)] * size, size)

    def _noise(self, pool: Pool, size: int) -> tuple[list[int], list[Window]]:
        """The first slots, up to `size`, and a steady window for each; `_reset_first` must follow their step."""
        rng, slots = np.random.default_rng(0), list(range(min(size, self.slots)))
        return slots, [self._window(pool, rng) for _ in slots]

    def _reset_first(self, pool: Pool, size: int) -> None:
        for slot in (*range(min(size, self.slots)), self.slots):
            self.reset(pool, slot)

    def measure(self, clock: Callable[[], float], at_most_s: float) -> dict[Pool, dict[int, float]]:
        """Seconds of a steady step for every pool and batch size, by `clock`; takes about `at_most_s` in all.

        Medians of a few steps of noise, each row in its own slot, while no slot is in use; of a single step if more
        would take too long. If fewer rows took longer than more rows, that was noise, and they count as equal.
        """
        share_s = at_most_s / (len(self._steppers) * len(self.batch_sizes))
        times: dict[Pool, dict[int, float]] = {}
        for pool in self.pools:
            measured = {size: self.measure_step(pool, size, clock, share_s) for size in self.batch_sizes}
            times[pool] = {size: min(measured[other] for other in measured if other >= size) for size in measured}
        return times

    def measure_step(self, pool: Pool, size: int, clock: Callable[[], float], at_most_s: float) -> float:
        """Median seconds of a step at that batch size, while no slot is in use."""
        slots, windows = self._noise(pool, size)
        self._positions[pool][slots] = START_FRAMES  # measures a steady step with any input
        times: list[float] = []
        while len(times) < MEASURED_STEPS and sum(times) + max(times, default=0.0) <= at_most_s:
            begin_s = clock()
            self.step(pool, slots, windows, size)
            times.append(clock() - begin_s)
        self._reset_first(pool, size)
        return median(times)

    def _window(self, pool: Pool, rng: np.random.Generator | None = None) -> Window:
        """A steady window of silence or noise, whose output is discarded."""
        shape = self._steppers[pool].window_shape
        if rng is None:
            x: np.ndarray = np.zeros(shape, np.float32 if pool.kind == "encode" else np.int64)
        elif pool.kind == "encode":
            x = rng.normal(0, 0.1, shape).astype(np.float32)
        else:
            x = rng.integers(CODEBOOK_SIZE, size=shape)
        return Window(x, pool.config.window_frames, pool.config.chunk_frames, slice(0, 0))

    def step(self, pool: Pool, slots: list[int], windows: list[Window], size: int) -> np.ndarray:
        """Launches a step and returns its rows."""
        return self.launch(pool, slots, windows, size).wait()

    def launch(self, pool: Pool, slots: list[int], windows: list[Window], size: int) -> StepRows:
        """Launches a step at batch `size` >= len(windows); its rows of output are in the order of `windows`.

        A recorded step with first or last windows has at most `max_edges` rows.
        """
        torch.get_num_threads()  # applies the setting: until a thread reads it, oneDNN uses all cores in it
        key = pool, size, self._is_steady(pool, slots, windows)
        self._positions[pool][slots] += [window.commit for window in windows]
        graph = self._graphs.get(key)
        if graph is not None:
            self._fill(graph.next.x.numpy(), graph.next.rows.numpy(), pool, slots, windows)
            buffers = graph.launch()
            return StepRows(buffers.wait, len(windows), buffers.is_done)
        x, rows = self._batch(pool, slots, windows, size)
        assert not self._traced or key in self._traced, "starts and endings are stepped apart"
        output = self._traced[key](x, rows) if self._traced else self._eager(pool, x, rows, key[2])
        return StepRows(output.numpy, len(windows))

    def is_alive(self) -> bool:
        """Whether the device still works: most CUDA errors are permanent, and every later call fails too."""
        try:
            return torch.ones(1, device=self._device).item() == 1
        except Exception:
            _log.exception("the device does not respond")
            return False

    def _is_steady(self, pool: Pool, slots: list[int], windows: list[Window]) -> bool:
        """Whether every row is past its stream's start and before its last window."""
        whole = pool.config.window_frames, pool.config.chunk_frames
        is_past_start = self._positions[pool][slots].min() >= START_FRAMES
        return bool(is_past_start) and all((window.valid, window.commit) == whole for window in windows)

    def _eager(self, pool: Pool, x: Tensor, rows: Tensor, steady: bool | None = None) -> Tensor:
        state, stepper = self._states[pool], self._steppers[pool]
        return stepper.step(x.to(self._device), state, *rows.to(self._device), steady=steady).cpu()

    def _batch(self, pool: Pool, slots: list[int], windows: list[Window], size: int) -> tuple[Tensor, Tensor]:
        """x (size, *window_shape), and slots, valid and commit as (3, size), on the host."""
        x = np.empty((size, *self._steppers[pool].window_shape), windows[0].x.dtype)
        rows = np.empty((3, size), np.int64)
        self._fill(x, rows, pool, slots, windows)
        return torch.from_numpy(x), torch.from_numpy(rows)

    def _fill(self, x: np.ndarray, rows: np.ndarray, pool: Pool, slots: list[int], windows: list[Window]) -> None:
        """Rows of a step plus spare ones: silence in the spare slot."""
        count = len(windows)
        x[count:] = 0
        rows[:, count:] = np.array([self.slots, pool.config.window_frames, pool.config.chunk_frames])[:, None]
        rows[:, :count] = slots, [window.valid for window in windows], [window.commit for window in windows]
        for row, window in zip(x, windows, strict=False):
            row[:] = window.x

    def reset(self, pool: Pool, slot: int) -> None:
        self._steppers[pool].reset(self._states[pool], slot)
        self._positions[pool][slot] = 0

    def prepare_voice(self, pool: Pool, voice: np.ndarray, max_steps: int) -> bool:
        """Computes a voice a few steps further; returns whether `prime` has nothing left to compute."""
        known = self._found_voice(voice) if max_steps == 0 else self._voice(voice)
        return known is not None and known.prepare(self._decoder(pool), max_steps)

    def prime(self, pool: Pool, slot: int, voice: np.ndarray) -> Windower:
        """Starts a slot in a voice and returns its windower. The most recent voices are kept computed."""
        start = self._voice(voice).start(self._decoder(pool))
        self._steppers[pool].load(self._states[pool], slot, start.state)
        self._positions[pool][slot] = start.windower.position
        return start.windower.copy()

    def hold_voices(self, voices: list[np.ndarray]) -> None:
        """Computes and keeps voices for every decoder; call it before `replicate`, which shares them."""
        for tokens in voices:
            voice = self._held_voices[tokens.tobytes()] = Voice(tokens)
            for pool in self.pools:
                if pool.kind == "decode":
                    voice.start(self._decoder(pool))

    def _decoder(self, pool: Pool) -> Decoder:
        stepper = self._steppers[pool]
        assert isinstance(stepper, Decoder)
        return stepper

    def _found_voice(self, tokens: np.ndarray) -> Voice | None:
        key = tokens.tobytes()
        return self._held_voices.get(key) or self._recent_voices.get(key)

    def _voice(self, tokens: np.ndarray) -> Voice:
        key = tokens.tobytes()
        if key in self._held_voices:
            return self._held_voices[key]
        voice = self._recent_voices.pop(key, None) or Voice(tokens)
        self._recent_voices[key] = voice  # the most recent last
        if len(self._recent_voices) > max(MIN_RECENT_VOICES, self.slots):
            del self._recent_voices[next(iter(self._recent_voices))]
        return voice

    def snapshot(self, pool: Pool, slot: int) -> bytes:
        """A slot as bytes that identify model and configuration."""
        return self._steppers[pool].snapshot(self._states[pool], slot)

    def restore(self, pool: Pool, slot: int, snapshot: bytes) -> None:
        """Restores a slot from a snapshot. Raises SnapshotError, and then changes nothing."""
        self._steppers[pool].restore(self._states[pool], slot, snapshot)
        self._positions[pool][slot] = int(self._states[pool].position[slot])
