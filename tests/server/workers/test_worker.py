"""A worker's step: each session gets what is its own."""

import socket
from contextlib import closing

import numpy as np

from neucodec_streaming.engine.engine import Engine
from neucodec_streaming.protocol.query import session_request
from neucodec_streaming.server.workers.messages import CommandKind, EventKind, SessionSpec
from neucodec_streaming.server.workers.worker import Worker
from neucodec_streaming.tokens import tokens_to_bytes
from tests.streaming.engine.fake import CONFIG, FakeRunner


class InvalidSlot(FakeRunner):
    """A runner whose slot 1 computes NaN."""

    def _row(self, pool, slot, window):
        return super()._row(pool, slot, window) * (np.nan if slot == 1 else 1)


def test_invalid_output_of_one_session_ends_only_that_session():
    ours, its = socket.socketpair()
    request, tokens = session_request("decode"), np.arange(100, 100 + CONFIG.window_frames, dtype=np.uint16)
    with closing(ours), closing(its):
        worker = Worker(Engine(InvalidSlot(), gather_s=0), its, 24_000, {CONFIG: "default"})
        spec = SessionSpec(request.kind, CONFIG, request.input, request.output)
        for number in range(3):
            worker.command(number, CommandKind.OPEN, spec)
            worker.command(number, CommandKind.FEED, tokens_to_bytes(tokens + number))
        while (report := worker.take()) is None or not report.steps:
            worker.step()
    news = [(number, kind) for number, kind, _ in report.events if kind is not EventKind.OPENED]
    assert news == [(0, EventKind.OUTPUT), (1, EventKind.ENDED), (2, EventKind.OUTPUT)]
