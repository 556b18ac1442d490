"""A runner without a model: its output shows which input went in, and how many frames the slot had committed."""

import numpy as np

from neucodec_streaming.config import INPUT_HOP, OUTPUT_HOP, StreamConfig
from neucodec_streaming.engine.scheduler import Pool
from neucodec_streaming.engine.steps import StepRows
from neucodec_streaming.errors import SnapshotError
from neucodec_streaming.windows import DecoderWindower, EncoderWindower

CONFIG = StreamConfig(chunk_frames=5, lookahead_frames=5)
POOLS = {kind: Pool(kind, CONFIG) for kind in ("encode", "decode")}


def level(pcm: np.ndarray) -> int:
    """Token of a frame of constant samples: its level in steps of 1 / 1024."""
    return int(np.rint(pcm[0] * 1024))


class FakeRunner:
    """A token is the frame's level * 256 + the frames committed before (mod 256); a hop is the token / 65536."""

    max_edges = None
    output_hop = OUTPUT_HOP
    step_s = 0.001

    def __init__(self, slots: int = 8, batch_sizes: tuple[int, ...] = (1, 2, 4), pools=None) -> None:
        self.slots = slots
        self.batch_sizes = batch_sizes
        self.pools = list(pools or POOLS.values())
        self.committed = {pool: [0] * slots for pool in self.pools}
        self.steps: list[tuple[str, list[int], int]] = []
        self.broken: Exception | None = None
        self.alive = True
        self.depth = 1
        self.is_computing = False  # on the device's copy of its input
        self.resets: list[tuple[str, int]] = []
        self.primed: list[tuple[int, list[int]]] = []
        self.voice_steps = 0
        """Steps to compute a voice; `prepared` counts those done."""
        self.prepared: dict[bytes, int] = {}

    def windower(self, pool):
        if pool.kind == "encode":
            return EncoderWindower(pool.config)
        return DecoderWindower(pool.config, self.output_hop)

    def reset(self, pool, slot):
        if self.broken is not None:
            raise self.broken
        self.resets.append((pool.kind, slot))
        self.committed[pool][slot] = 0

    def prepare_voice(self, pool, voice, max_steps):
        key = voice.tobytes()
        self.prepared[key] = self.prepared.get(key, 0) + max_steps
        return self.prepared[key] >= self.voice_steps

    def prime(self, pool, slot, voice):
        """Leaves the windower in the state of the real one."""
        self.primed.append((slot, voice.tolist()))
        windower = self.windower(pool)
        windower.append(voice)
        while windower.take():
            pass
        windower.become_start()
        self.committed[pool][slot] = windower.position
        return windower

    def measure_step(self, pool, size, clock, at_most_s):
        return self.step_s

    def snapshot(self, pool, slot):
        return bytes([self.committed[pool][slot]])

    def restore(self, pool, slot, snapshot):
        if snapshot == b"":
            raise SnapshotError("empty")
        self.committed[pool][slot] = snapshot[0]

    def is_alive(self):
        return self.alive

    def launch(self, pool, slots, windows, size):
        rows = self.step(pool, slots, windows, size)
        return StepRows(lambda: rows, len(windows), lambda: not self.is_computing)

    def step(self, pool, slots, windows, size):
        assert len(slots) == len(set(slots)) <= size in self.batch_sizes
        if self.broken is not None:
            raise self.broken
        self.steps.append((pool.kind, list(slots), size))
        rows = [self._row(pool, slot, window) for slot, window in zip(slots, windows, strict=True)]
        return np.stack(rows)

    def _row(self, pool, slot, window):
        before = self.committed[pool][slot]
        self.committed[pool][slot] += window.commit
        frames = pool.config.window_frames
        if pool.kind == "encode":
            hops = window.x[: frames * INPUT_HOP].reshape(frames, INPUT_HOP)
            return np.array([level(hop) * 256 + (before + i) % 256 for i, hop in enumerate(hops)], np.int64)
        return np.repeat(window.x.astype(np.float32) / 65536, self.output_hop)


def speech(*levels: int) -> np.ndarray:
    """A frame for each level (0..255)."""
    return np.repeat(np.array(levels, np.float32) / 1024, INPUT_HOP)


def tokens_of(levels: list[int]) -> np.ndarray:
    return np.array([value * 256 + i % 256 for i, value in enumerate(levels)], np.uint16)


def audio_of(tokens: np.ndarray) -> np.ndarray:
    return np.repeat(tokens.astype(np.float32) / 65536, OUTPUT_HOP)
