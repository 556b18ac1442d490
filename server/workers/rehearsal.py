"""Measures the host's time of a step, for admission, before the first client: what steps cost the worker and the
converter of a GPU, by processor time, with sessions of noise in the default formats. A chunk comes in one piece, as
sessions send it (server/sessions/window_buffer.py).

The two are processes of their own, so the slower one counts. Clients' sockets and formats that need resampling add to
it.
"""

import socket
import time
from collections.abc import Callable, Mapping
from statistics import median

import numpy as np

from neucodec_streaming.config import START_FRAMES
from neucodec_streaming.engine.engine import Engine
from neucodec_streaming.engine.scheduler import Pool
from neucodec_streaming.engine.steps import Steps
from neucodec_streaming.protocol.messages import INPUT_AUDIO, OUTPUT_AUDIO, TOKENS
from neucodec_streaming.server.workers.converter import Converter
from neucodec_streaming.server.workers.ipc import Unpacker, packed
from neucodec_streaming.server.workers.messages import CommandKind, SessionSpec, WorkerCommand
from neucodec_streaming.server.workers.worker import Worker

ROUNDS = 5
"""Measured steps of a size."""
FORMATS = {"encode": (INPUT_AUDIO, TOKENS), "decode": (TOKENS, OUTPUT_AUDIO)}


def host_s_of(
    runner: Steps, output_rate: int, clock: Callable[[], float] = time.thread_time
) -> Mapping[Pool, Mapping[int, float]]:
    """Pool -> batch size -> seconds of the host's time of a step; none where a step is the host's own work.

    No slot may be in use. Sizes between the smallest and the largest are interpolated: each row costs the same.
    """
    if runner.depth == 1:
        return {}
    ends = sorted({runner.batch_sizes[0], runner.batch_sizes[-1]})
    found: dict[Pool, dict[int, float]] = {}
    for pool in runner.pools:
        times = [Rehearsal(runner, pool, size, output_rate, clock).step_s() for size in ends]
        found[pool] = {size: float(np.interp(size, ends, times)) for size in runner.batch_sizes}
    return found


class Rehearsal:
    """A worker and a converter over `size` sessions of `pool`, or as many as there are slots."""

    def __init__(self, runner: Steps, pool: Pool, size: int, output_rate: int, clock: Callable[[], float]) -> None:
        self._runner, self._pool, self._clock = runner, pool, clock
        self._sessions = range(1, min(size, runner.slots) + 1)
        self._engine = Engine(runner, 0.0, float("inf"), {pool: {size: 1.0}})
        ours, its = socket.socketpair()  # nothing is sent: the rehearsal calls the worker itself
        ours.close()
        self._worker, self._converter = Worker(self._engine, its, output_rate, {pool.config: ""}), Converter()
        input, output = FORMATS[pool.kind]
        self._spec = SessionSpec(pool.kind, pool.config, input, output)
        self._chunk = np.random.default_rng(0).bytes(pool.config.chunk_frames * input.hop * input.unit_bytes)
        self._from_loop, self._from_converter, self._from_worker = Unpacker(), Unpacker(), Unpacker()
        self.worker_s = self.converter_s = 0.0

    def step_s(self) -> float:
        """Median seconds of a steady step, in the slower process. Resets all slots."""
        try:
            self._send([(number, CommandKind.OPEN, self._spec) for number in self._sessions])
            ahead = -(-self._pool.config.window_frames // self._pool.config.chunk_frames)
            for _ in range(ahead + -(-START_FRAMES // self._pool.config.chunk_frames)):
                self._round()
            times = [self._round() for _ in range(ROUNDS)]
            self._send([(number, CommandKind.CLOSE, None) for number in self._sessions])
        finally:
            self._worker.close()
            for number in self._sessions:
                self._runner.reset(self._pool, number - 1)
        return median(times)

    def _round(self) -> float:
        """One chunk of each session, and the step that it completes."""
        self.worker_s = self.converter_s = 0.0
        self._send([(number, CommandKind.FEED, self._chunk) for number in self._sessions])
        while (wake_s := self._engine.wake_s()) is not None:
            time.sleep(max(0.0, wake_s - time.monotonic()))
            self._step()
        return max(self.worker_s, self.converter_s)

    def _send(self, commands: list[WorkerCommand]) -> None:
        message = packed(commands)
        begin_s = self._clock()
        for command in self._from_loop.feed(message)[0]:
            self._converter.command(*command)
        message = packed(self._converter.take()[0])
        sent_s = self._clock()
        for command in self._from_converter.feed(message)[0]:
            self._worker.command(*command)
        self.converter_s += sent_s - begin_s
        self.worker_s += self._clock() - sent_s

    def _step(self) -> None:
        begin_s = self._clock()
        self._worker.step()
        report = self._worker.take()
        message = None if report is None else packed(report)
        stepped_s = self._clock()
        self.worker_s += stepped_s - begin_s
        if message is not None:
            for event in self._from_worker.feed(message)[0].events:
                self._converter.event(*event)
            packed(self._converter.take()[1])
            self.converter_s += self._clock() - stepped_s
