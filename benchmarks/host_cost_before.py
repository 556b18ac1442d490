"""The worker of an earlier checkout over the stand-in device, for `benchmarks.host_cost --base CHECKOUT`."""

import os
import socket
import time
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch

from benchmarks.common.checkout import imported
from neucodec_streaming.protocol.query import SessionRequest


class WordsBefore:
    """The messages of that checkout."""

    def __init__(self, base: Path) -> None:
        channel, worker = imported(base, "server.channel"), imported(base, "server.worker")
        self.packed, self.unpacker = channel.packed, channel.Unpacker
        self.open, self.feed, self.output, self.ended = (
            worker.Verb.OPEN, worker.Verb.FEED, worker.News.OUTPUT, worker.News.ENDED,
        )  # fmt: skip
        self._order = worker.Order
        self._config = imported(base, "streaming.config").StreamConfig
        self._format = imported(base, "streaming.protocol.messages").StreamFormat

    def spec(self, request: SessionRequest, chunk_frames: int, lookahead_frames: int) -> Any:
        formats = (self._format(one.kind, one.format, one.rate) for one in (request.input, request.output))
        return self._order(request.kind, self._config(chunk_frames, lookahead_frames), *formats)


class StepBefore:
    """Replaces `CapturedStep`: copies its input, waits for the device, and copies its output."""

    def __init__(self, device: Any, x: torch.Tensor, at: torch.Tensor, y: torch.Tensor) -> None:
        self._device, self._x, self._at, self._y = device, x.clone(), at.clone(), y

    def __call__(self, x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        self._x.copy_(x)
        self._at.copy_(at)
        time.sleep(max(0.0, self._device.launch() - time.perf_counter()))
        return self._y.clone()


def load_before(base: Path, device: Any, kind: str, cut: tuple[int, int], rows: int, settings: Any) -> Any:
    engine = imported(base, "streaming.engine.engine")
    config = imported(base, "streaming.config").StreamConfig(*cut)
    pools = list(engine.pools_of(kind, config).values())
    codec = imported(base, "streaming.codec").load_codec("nano")
    runner = imported(base, "streaming.engine.runner").Runner(codec, pools, 2 * rows, (rows,))
    for pool in pools:
        x, at = runner._silent_batch(pool, rows)
        runner._captured[pool, rows] = StepBefore(device, x, at, runner._eager(pool, x, at))
    model = imported(base, "server.model").Model("constant", {"default": config}, "default")
    return [engine.Engine(runner, 0.0, 1e9)], model


def serve_before(base: Path, its: socket.socket, device: Any, kind: str, cut: tuple[int, int], rows: int) -> NoReturn:
    torch.set_num_threads(1)
    load = partial(load_before, base, device, kind, cut, rows)
    settings = imported(base, "server.settings").Settings()
    imported(base, "server.worker").work([its], settings, load, forks=False)
    os._exit(0)
