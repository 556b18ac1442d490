"""Workers in processes, and the channel of their messages."""

import asyncio
import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from neucodec_streaming.engine.engine import Engine
from neucodec_streaming.errors import DeviceError, ModelError
from neucodec_streaming.protocol.messages import Flush, Flushed
from neucodec_streaming.server.app import App
from neucodec_streaming.server.cli import serve
from neucodec_streaming.server.loading import load_engines
from neucodec_streaming.server.model import Model
from neucodec_streaming.server.settings.fields import Settings
from neucodec_streaming.server.workers.handle import QUOTA
from neucodec_streaming.server.workers.ipc import Unpacker, packed
from neucodec_streaming.server.workers.messages import CommandKind
from tests.server.hosting import DEADLINE_S, s16, talk
from tests.server.test_app import get
from tests.streaming.engine.fake import CONFIG, FakeRunner, speech, tokens_of

LEVELS = list(range(24))
SETTINGS = Settings(port=0, workers=2, nice=3)
LOAD_S = 120.0


def load(settings: Settings) -> tuple[list[Engine], Model]:
    """Runs in the workers' process."""
    return [Engine(FakeRunner()) for _ in range(2)], Model("fake", {"default": CONFIG}, "default")


def fail(error: Exception, settings: Settings) -> tuple[list[Engine], Model]:
    raise error


@pytest.fixture
async def app():
    made = App(SETTINGS, load, apart=True)
    await made.start()
    await asyncio.wait_for(made.loaded(), DEADLINE_S)
    yield made
    await made.stop()


def pids_of(app: App) -> list[int]:
    pids = app._devices.pids
    assert len(set(pids)) == 2 and os.getpid() not in pids
    return pids


def wait_for_the_end(pid: int) -> None:
    """A zombie counts as ended."""
    with suppress(FileNotFoundError):
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)


def load_for_ever(settings: Settings) -> tuple[list[Engine], Model]:
    while True:
        time.sleep(DEADLINE_S)


async def test_sessions_on_worker_processes_get_the_right_output(app):
    async with talk(app.url, "/v1/encode") as one, talk(app.url, "/v1/roundtrip") as other:
        for client in (one, other):
            await client.send(s16(speech(*LEVELS)))
        await one.finish()
        await other.finish()
        np.testing.assert_array_equal(one.tokens, tokens_of(LEVELS))
        assert len(other.output) == len(LEVELS) * 960
    _, body = await asyncio.to_thread(get, app.url + "/readyz")
    assert body["ready"] and body["sessions"] == 0


async def test_the_workers_are_nicer_than_the_event_loop(app):
    own, *theirs = (os.getpriority(os.PRIO_PROCESS, pid) for pid in (0, *pids_of(app)))
    assert theirs == [min(own + SETTINGS.nice, 19)] * 2


async def test_the_processes_of_the_workers_end_with_the_server():
    made = App(SETTINGS, load, apart=True)
    await made.start()
    await asyncio.wait_for(made.loaded(), DEADLINE_S)
    pids = pids_of(made)
    for pid in pids:
        os.kill(pid, signal.SIGTERM)  # as a service manager does: to all processes at once
    async with talk(made.url, "/v1/encode") as one, talk(made.url, "/v1/encode") as other:
        await one.finish()
        await other.finish()
    await made.stop()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("which", [0, -1])
async def test_a_dead_worker_process_ends_its_sessions_and_makes_the_server_unready(app, which):
    async with talk(app.url, "/v1/encode") as one, talk(app.url, "/v1/encode") as other:
        os.kill(pids_of(app)[which], signal.SIGKILL)
        assert (await (one, other)[which].fail()).code == "device"
        await (one, other)[which - 1].finish()
    status, body = await asyncio.to_thread(get, app.url + "/readyz")
    assert status == 503 and body["reason"] == "a worker has stopped"


async def test_forked_workers_step_with_several_threads_each():
    settings = replace(SETTINGS, model="nano", threads=2, batch_sizes=(1,), profiles={"default": None})
    made = App(settings, load_engines, apart=True)
    await made.start()
    await asyncio.wait_for(made.loaded(), LOAD_S)
    async with talk(made.url, "/v1/roundtrip") as one, talk(made.url, "/v1/roundtrip") as other:
        for client in (one, other):
            await client.send(s16(speech(*LEVELS)))
            await client.finish()
    assert len(one.output) == len(LEVELS) * 960 and one.output == other.output
    await made.stop()


async def test_a_worker_that_hangs_is_killed_with_the_server(caplog):
    made = App(replace(SETTINGS, stop_timeout_s=0.2), load, apart=True)
    await made.start()
    await asyncio.wait_for(made.loaded(), DEADLINE_S)
    last = pids_of(made)[-1]
    os.kill(last, signal.SIGSTOP)
    await made.stop()
    assert "killing them" in caplog.text
    await asyncio.wait_for(asyncio.to_thread(wait_for_the_end, last), DEADLINE_S)


async def test_a_loading_server_stops_at_once_without_an_error(caplog):
    made = App(SETTINGS, load_for_ever, apart=True)
    await made.start()
    process = made._devices._process
    await asyncio.wait_for(made.stop(), DEADLINE_S)
    assert process.returncode == -signal.SIGKILL and "worker" not in caplog.text


async def test_the_command_exits_when_a_worker_dies(monkeypatch):
    async def failed(app: App) -> None:
        os.kill(pids_of(app)[-1], signal.SIGKILL)
        await app._devices.lost.wait()

    monkeypatch.setattr(App, "failed", failed)  # the server is ready by then
    with pytest.raises(DeviceError, match="a worker has stopped"):
        await asyncio.wait_for(serve(SETTINGS, load), DEADLINE_S)


@pytest.mark.parametrize("error", [ModelError("model.safetensors is cut short"), ValueError("3")])
async def test_a_loading_error_crosses_the_process_border(error):
    made = App(SETTINGS, partial(fail, error), apart=True)
    await made.start()
    try:
        kind = ModelError if isinstance(error, ModelError) else DeviceError
        with pytest.raises(kind, match=str(error)):
            await asyncio.wait_for(made.loaded(), DEADLINE_S)
    finally:
        await made.stop()


async def test_a_session_has_a_limited_number_of_commands_in_flight(app):
    answered = asyncio.Event()
    link = app._devices.all[0].open(None, lambda *news: answered.set())
    for _ in range(QUOTA - 1):
        assert link.has_quota
        link.submit(CommandKind.FLUSH)
    assert not link.has_quota
    while not link.has_quota:
        answered.clear()
        await asyncio.wait_for(answered.wait(), DEADLINE_S)
    link.submit(CommandKind.CLOSE)


async def test_a_session_that_used_up_its_quota_never_waits_forever(app):
    async with talk(app.url, "/v1/encode") as client:
        for _ in range(4 * QUOTA):
            await client.send(Flush())
        for _ in range(4 * QUOTA):
            await client.hear_until(Flushed)
        await client.finish()


def test_messages_are_reassembled_from_any_pieces():
    rng = random.Random(0)
    messages = [[(number, bytes(rng.randrange(2000)))] for number in range(50)]
    stream = b"".join(map(packed, messages))
    for most in (1, 7, 5000, len(stream)):
        unpacker, found, start = Unpacker(), [], 0
        while start < len(stream):
            size = rng.randint(1, most)
            found += unpacker.feed(stream[start : start + size])
            start += size
        assert found == messages
