"""Formats converted in a process before the worker: sessions get the same bytes, and failures are reported."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.common.processes import family
from neucodec_streaming.errors import AudioError, DeviceError
from neucodec_streaming.protocol.messages import Clear, Cleared, Flush, Flushed
from neucodec_streaming.protocol.query import session_request
from neucodec_streaming.server.app import App
from neucodec_streaming.server.settings.fields import Settings
from neucodec_streaming.server.workers.converter import Converter
from neucodec_streaming.server.workers.messages import CommandKind, EventKind, SessionSpec
from tests.server.hosting import DEADLINE_S, talk
from tests.server.workers.test_formats import FORMATS, TELEPHONE, answer, cut, utterance
from tests.server.workers.test_handle import load
from tests.streaming.engine.fake import CONFIG

SETTINGS = Settings(port=0, device="cuda", max_load=1e9, max_behind_s=1e9)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[App]:
    app = App(settings, load, apart=True)
    await app.start()
    await asyncio.wait_for(app.loaded(), DEADLINE_S)
    yield app
    await app.stop()


@pytest.fixture
async def app():
    async with running(SETTINGS) as made:
        yield made


async def test_a_converter_process_does_not_change_the_output_of_any_format(app):
    pid = app._devices.pids[0]
    assert len(family(pid)) == 2, "a worker, and a process for its formats"
    for asked in FORMATS:
        request, rng = session_request("roundtrip", **asked), random.Random(str(asked))
        payload = utterance(request, 3, 23, 7)
        async with talk(app.url, request.target) as client:
            await client.send(*cut(payload, request.input.unit_bytes, rng), Flush())
            await client.hear_until(Flushed)
            await client.send(utterance(request, 5, 30), Clear())
            await client.hear_until(Cleared)
            before = len(client.output)
            await client.send(*cut(payload, request.input.unit_bytes, rng))
            await client.finish()
            assert client.output.startswith(answer(request, payload))
            assert client.output[before:] == answer(request, payload)


async def test_a_parked_session_resumes_with_its_converter_state():
    request, rng = session_request("roundtrip", **TELEPHONE), random.Random(7)
    payload = utterance(request, 4, 31)
    async with (
        running(replace(SETTINGS, park_after_s=0.05)) as app,
        talk(app.url, request.target) as client,
    ):
        await client.send(payload[:2001])
        await asyncio.wait_for(app.emptied(), DEADLINE_S)
        await client.send(*cut(payload[2001:], 1, rng))
        await client.finish()
        assert client.output == answer(request, payload)


async def test_invalid_audio_ends_only_its_own_session(app):
    request = session_request("encode", input_format="f32le")
    async with talk(app.url, request.target) as one, talk(app.url, request.target) as other:
        await one.send(np.full(2000, np.nan, np.float32).tobytes())
        assert (await one.fail()).code == AudioError.code
        await other.send(bytes(4 * 320 * 12))
        assert (await other.finish()).output == 12


@pytest.mark.parametrize("which", [0, 1])
async def test_sessions_get_an_error_when_either_process_dies(app, which):
    async with talk(app.url, "/v1/encode") as client:
        os.kill(family(app._devices.pids[0])[which], signal.SIGKILL)
        assert (await client.fail()).code == DeviceError.code
    await asyncio.wait_for(app.failed(), DEADLINE_S)


def test_output_from_before_a_clear_does_not_reach_the_new_resampler():
    request = session_request("decode", output_rate=8000)
    spec = SessionSpec("decode", CONFIG, request.input, request.output)
    audio = np.random.default_rng(0).normal(0, 0.1, 2400).astype(np.float32).tobytes()
    heard = []
    for stale in (False, True):
        converter = Converter()
        converter.command(1, CommandKind.OPEN, spec)
        converter.command(1, CommandKind.CLEAR, None)
        if stale:
            converter.event(1, EventKind.OUTPUT, (audio[:4800], 0, 0.0))
            converter.event(1, EventKind.FINISHED, 0)
        converter.event(1, EventKind.OUTPUT, (audio, 1, 0.0))
        converter.event(1, EventKind.FINISHED, 1)
        _, events = converter.take()
        heard.append([event for event in events if event[2] != 0])
    assert heard[0] == heard[1]
    assert [kind for _, kind, _ in heard[0]] == [EventKind.OUTPUT, EventKind.OUTPUT, EventKind.FINISHED]


def test_answers_pass_for_unknown_sessions_too():
    converter = Converter()
    converter.command(3, CommandKind.ANSWER, None)
    answers = [(3, EventKind.HANDLED, None), (0, EventKind.MEASURED, 0.1)]
    for answered in answers:
        converter.event(*answered)
    assert converter.take() == ([(3, CommandKind.ANSWER, None)], answers)
    assert converter.take() == ([], [])
