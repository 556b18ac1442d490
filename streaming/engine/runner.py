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
from neucodec_streaming.config import CODEBOOK_SIZE, START_FRAMES
from neucodec_streaming.decoder import Decoder
from neucodec_streaming.engine.cuda_graph import Captures, GraphedStep
from neucodec_streaming.engine.scheduler import Pool
from neucodec_streaming.engine.steps import StepRows
from neucodec_streaming.engine.traced_step import TracedStep, packed_weights
from neucodec_streaming.stepper import Stepper
from neucodec_streaming.stream import Voice
from neucodec_streaming.windows import AnyWindower, DecoderWindower, EncoderWindower, Window

MEASURED_STEPS = 3
MIN_RECENT_VOICES = 8
"""Voices of clients that stay computed, or one for each slot if that is more: so clearing a stream computes none again.
A voice takes as much memory as a slot in each profile that used it."""

_log = logging.getLogger(__name__)


class Runner:
    """Steps the sessions of `pools`, up to `slots` in each, on the codec's device.

    `cuda_graphs`: whether steps on CUDA are captured; "auto": if the first replay has the bits of the eager step.
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
        self._positions: dict[Pool, np.ndarray] = {}  # as in the states, for the host
        self._traced: dict[tuple[Pool, int, bool], TracedStep] = {}  # by pool, batch size, and whether it is steady
        self._graphs: dict[tuple[Pool, int, bool], GraphedStep] = {}
        self._held_voices: dict[bytes, Voice] = {}
        self._recent_voices: dict[bytes, Voice] = {}
        for pool in pools:
            self._steppers[pool] = codec.encoder(pool.config) if pool.kind == "encode" else codec.decoder(pool.config)
        self._renew()

    def _renew(self) -> None:
        """States as new."""
        self._states = {pool: stepper.new_state(self.slots + 1) for pool, stepper in self._steppers.items()}
        self._positions = {pool: np.zeros(self.slots + 1, np.int64) for pool in self._steppers}

    def replicate(self) -> "Runner":
        """After `warm_up`, on a CPU: another one, warm too, with states of its own, for a thread of its own."""
        other = copy(self)
        other._recent_voices = {}
        other._renew()
        other._traced = {key: step.on(other._states[key[0]]) for key, step in self._traced.items()}
        return other

    @property
    def max_edges(self) -> int | None:
        """The largest batch of starts and endings, which are stepped apart from steady windows where steps are
        recorded; None: together with them."""
        if self._graphs:
            return self.batch_sizes[-1]
        return self.batch_sizes[0] if self._traced else None

    @property
    def depth(self) -> int:
        """Steps that may be in flight."""
        return 2 if self._graphs else 1

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
        """Computes every shape that can occur and records it; all slots are as new then."""
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
            _log.warning("this PyTorch cannot trace steps; they are slower without", exc_info=True)
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
                _log.warning("steps are not captured as CUDA graphs; they are slower without", exc_info=True)
                self._graphs.clear()
        for pool in self.pools:
            for size in self.batch_sizes:
                self._eager(pool, *self._noise_batch(pool, size))
                self._reset_first(pool, size)

    def _capture(self) -> None:
        """Largest first: smaller graphs fit into the memory that they share with it."""
        shared, graphs = Captures(self._device), {}
        for size in reversed(self.batch_sizes):
            for pool, stepper in self._steppers.items():
                for steady in (False, True):
                    x, rows = self._noise_batch(pool, size)
                    graph = GraphedStep(stepper, self._states[pool], x, rows, shared, steady=steady)
                    self._reset_first(pool, size)
                    if self._cuda_graphs == "auto":
                        self._check_replay(pool, graph, x, rows, steady)
                    graphs[pool, size, steady] = graph
        self._graphs = graphs

    def _check_replay(self, pool: Pool, graph: GraphedStep, x: Tensor, rows: Tensor, steady: bool) -> None:
        """Raises RuntimeError where a replay has other bits than the eager step."""
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
        eager, replayed = outputs
        if not np.array_equal(eager[:, : replayed.shape[1]], replayed):
            raise RuntimeError(f"a replayed {pool.kind} step of {len(x)} rows does not have the bits of the eager one")

    def _trace(self, pool: Pool) -> None:
        """The steady step at every batch size, and any step at the smallest. Raises where PyTorch cannot."""
        stepper, state, smallest = self._steppers[pool], self._states[pool], self.batch_sizes[0]
        packed = packed_weights(lambda: self._eager(pool, *self._silent_batch(pool, smallest)))
        for size in self.batch_sizes:
            x_and_at = self._silent_batch(pool, size)
            self._traced[pool, size, True] = TracedStep(stepper, state, *x_and_at, packed, steady=True)
        x_and_at = self._silent_batch(pool, smallest)
        self._traced[pool, smallest, False] = TracedStep(stepper, state, *x_and_at, packed, steady=False)

    def _silent_batch(self, pool: Pool, size: int) -> tuple[Tensor, Tensor]:
        """A steady step of the spare slot alone."""
        return self._batch(pool, [self.slots] * size, [self._window(pool)] * size, size)

    def _noise_batch(self, pool: Pool, size: int) -> tuple[Tensor, Tensor]:
        """A step of the first slots; `_reset_first` must follow."""
        rng = np.random.default_rng(0)
        windows = [self._window(pool, rng) for _ in range(min(size, self.slots))]
        return self._batch(pool, list(range(len(windows))), windows, size)

    def _reset_first(self, pool: Pool, size: int) -> None:
        for slot in (*range(min(size, self.slots)), self.slots):
            self.reset(pool, slot)

    def measure(self, clock: Callable[[], float], at_most_s: float) -> dict[Pool, dict[int, float]]:
        """Seconds of a steady step for every pool and batch size, by `clock`; about `at_most_s` in all.

        Medians of a few steps of noise, each row in a slot of its own, while no slot is in use; of one step where more
        would take too long. Where fewer rows took longer than more, that was noise, and they count as long as those.
        """
        share_s = at_most_s / (len(self._steppers) * len(self.batch_sizes))
        times: dict[Pool, dict[int, float]] = {}
        for pool in self.pools:
            measured = {size: self.measure_step(pool, size, clock, share_s) for size in self.batch_sizes}
            times[pool] = {size: min(measured[other] for other in measured if other >= size) for size in measured}
        return times

    def measure_step(self, pool: Pool, size: int, clock: Callable[[], float], at_most_s: float) -> float:
        """Seconds of a step at that batch size, the median of a few, while no slot is in use."""
        rng, slots = np.random.default_rng(0), list(range(min(size, self.slots)))
        windows = [self._window(pool, rng) for _ in slots]
        self._positions[pool][slots] = START_FRAMES  # what is measured is a steady step, whatever it computes on
        times: list[float] = []
        while len(times) < MEASURED_STEPS and sum(times) + max(times, default=0.0) <= at_most_s:
            begin_s = clock()
            self.step(pool, slots, windows, size)
            times.append(clock() - begin_s)
        self._reset_first(pool, size)
        return median(times)

    def _window(self, pool: Pool, rng: np.random.Generator | None = None) -> Window:
        """A steady window of silence, or noise, whose output nobody wants."""
        shape = self._steppers[pool].window_shape
        x: np.ndarray = np.zeros(shape, np.float32 if pool.kind == "encode" else np.int64)
        if rng is not None:
            x = (
                rng.normal(0, 0.1, shape).astype(x.dtype)
                if pool.kind == "encode"
                else rng.integers(CODEBOOK_SIZE, size=shape)
            )
        return Window(x, pool.config.window_frames, pool.config.chunk_frames, slice(0, 0))

    def step(self, pool: Pool, slots: list[int], windows: list[Window], size: int) -> np.ndarray:
        """`launch`, and its rows."""
        return self.launch(pool, slots, windows, size).wait()

    def launch(self, pool: Pool, slots: list[int], windows: list[Window], size: int) -> StepRows:
        """Begins a step at batch `size` >= len(windows), whose rows of output are in the order of `windows`.

        Where steps are recorded, one with starts or endings has a size up to `max_edges`.
        """
        torch.get_num_threads()  # takes over what was set: before a thread has asked, oneDNN uses all cores in it
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
        """Whether the device still computes: most CUDA errors are for good, and every later call fails too."""
        try:
            return torch.ones(1, device=self._device).item() == 1
        except Exception:
            _log.exception("the device does not answer")
            return False

    def _is_steady(self, pool: Pool, slots: list[int], windows: list[Window]) -> bool:
        """Whether every row is past its stream's start and not its ending."""
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
        """Rows of a step, and spare ones: silence in the spare slot."""
        count = len(windows)
        x[count:] = 0
        rows[:, count:] = np.array([self.slots, pool.config.window_frames, pool.config.chunk_frames])[:, None]
        rows[:, :count] = slots, [window.valid for window in windows], [window.commit for window in windows]
        for row, window in zip(x, windows, strict=False):
            row[:] = window.x

    def reset(self, pool: Pool, slot: int) -> None:
        """That slot is as new."""
        self._steppers[pool].reset(self._states[pool], slot)
        self._positions[pool][slot] = 0

    def prepare_voice(self, pool: Pool, voice: np.ndarray, max_steps: int) -> bool:
        """Computes a voice a few steps further; whether `prime` has nothing left to compute."""
        known = self._found_voice(voice) if max_steps == 0 else self._voice(voice)
        return known is not None and known.prepare(self._decoder(pool), max_steps)

    def prime(self, pool: Pool, slot: int, voice: np.ndarray) -> AnyWindower:
        """That slot starts in a voice -> the windower that goes with it. The most recent voices are kept computed."""
        start = self._voice(voice).start(self._decoder(pool))
        self._steppers[pool].load(self._states[pool], slot, start.state)
        self._positions[pool][slot] = start.windower.position
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
        """That slot as bytes that name model and configuration."""
        return self._steppers[pool].snapshot(self._states[pool], slot)

    def restore(self, pool: Pool, slot: int, snapshot: bytes) -> None:
        """That slot as it was when the snapshot was taken. Raises SnapshotError, and then nothing has changed."""
        self._steppers[pool].restore(self._states[pool], slot, snapshot)
        self._positions[pool][slot] = int(self._states[pool].position[slot])
