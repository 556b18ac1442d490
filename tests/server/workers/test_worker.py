"""A worker's step: outputs of many sessions are encoded together, and each session gets what is its own."""

import socket
from contextlib import closing

import numpy as np
import pytest

from neucodec_streaming.engine.engine import Engine
from neucodec_streaming.errors import AudioError
from neucodec_streaming.formats import PCM_FORMATS
from neucodec_streaming.protocol.query import session_request
from neucodec_streaming.server.workers.formats import Formats, encoded
from neucodec_streaming.server.workers.messages import CommandKind, EventKind, SessionSpec
from neucodec_streaming.server.workers.worker import Worker
from neucodec_streaming.tokens import tokens_to_bytes
from tests.streaming.engine.fake import CONFIG, FakeRunner


class InvalidSlot(FakeRunner):
    """A runner whose slot 1 computes NaN."""

    def _row(self, pool, slot, window):
        return super()._row(pool, slot, window) * (np.nan if slot == 1 else 1)


@pytest.mark.parametrize("form", PCM_FORMATS)
def test_outputs_encoded_together_have_the_bytes_of_each_alone(form):
    rng = np.random.default_rng(0)
    outputs = [rng.normal(0, 0.6, count).astype(np.float32) for count in (2_400, 0, 1, 1_920)]
    request = session_request("decode", output_format=form)
    assert encoded(outputs, form) == [Formats(request.input, request.output).written(one) for one in outputs]


def test_an_invalid_output_is_an_error_of_all_that_are_encoded_with_it():
    with pytest.raises(AudioError, match="nan"):
        encoded([np.zeros(3, np.float32), np.full(3, np.nan, np.float32)], "s16le")


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
