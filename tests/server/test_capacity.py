"""Admission by measured step time, seen by a client, a probe and an operator."""

import asyncio
import urllib.request
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from websockets.exceptions import InvalidStatus

from neucodec_streaming.engine.budget import Budget
from neucodec_streaming.engine.engine import Engine
from neucodec_streaming.protocol.messages import Flush, Flushed, Ready
from neucodec_streaming.server import quiet_measurement
from neucodec_streaming.server.app import App
from neucodec_streaming.server.cli import capacity_table, main
from neucodec_streaming.server.model import Model
from neucodec_streaming.server.other_load import OtherLoad
from neucodec_streaming.server.settings.fields import Settings
from tests.server.hosting import GOLDEN, s16, talk
from tests.server.test_app import get
from tests.streaming.engine.fake import CONFIG, POOLS, FakeRunner, audio_of, tokens_of

BUDGET = Budget({POOLS["encode"]: {1: 0.02, 4: 0.03}, POOLS["decode"]: {1: 0.01, 4: 0.02}}, 0.5)  # a chunk is 100 ms
SETTINGS = Settings(model="fake", port=0, batch_sizes=(1, 4), max_load=0.5)


def load(settings: Settings) -> tuple[list[Engine], Model]:
    return [Engine(FakeRunner(slots=64))], Model("fake", {"default": CONFIG}, "default", BUDGET)


@pytest.fixture
async def app():
    made = App(SETTINGS, load)
    await made.start()
    await made.loaded()
    yield made
    await made.stop()


def scrape(app: App) -> dict[str, float]:
    with urllib.request.urlopen(app.url.replace("ws", "http", 1) + "/metrics", timeout=10) as response:
        assert response.headers["Content-Type"].startswith("text/plain")
        lines = [line for line in response.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


async def test_sessions_beyond_the_measured_load_are_refused_before_the_upgrade(app):
    status, body = await asyncio.to_thread(get, app.url + "/readyz")
    assert status == 200 and body["load"] == 0 and body["max_load"] == 0.5
    assert body["profiles"]["default"]["capacity"] == {"encode": 5, "decode": 9, "roundtrip": 4}
    async with AsyncExitStack() as stack:
        for _ in range(4):
            client = await stack.enter_async_context(talk(app.url, "/v1/roundtrip"))
            assert isinstance(client.seen[0], Ready) and client.seen[0].capacity == 4
        for kind in ("encode", "decode", "roundtrip"):
            with pytest.raises(InvalidStatus) as caught:
                await stack.enter_async_context(talk(app.url, f"/v1/{kind}"))
            response = caught.value.response
            assert response.status_code == 503 and int(response.headers["Retry-After"]) >= 1
            assert b"above the limit of 50%" in response.body
        seen = await asyncio.to_thread(scrape, app)
        assert seen['neucodec_sessions{kind="roundtrip",profile="default",state="attached"}'] == 4
        assert seen['neucodec_capacity_sessions{kind="decode",profile="default"}'] == 9
        assert seen["neucodec_load_ratio"] == seen["neucodec_load_limit_ratio"] == 0.5
        assert seen['neucodec_refusals_total{code="full"}'] == 3
        await client.finish()
    await asyncio.wait_for(app.emptied(), 10)
    seen = await asyncio.to_thread(scrape, app)
    assert (
        seen["neucodec_load_ratio"]
        == 0
        == seen['neucodec_sessions{kind="roundtrip",profile="default",state="attached"}']
    )
    async with talk(app.url, "/v1/roundtrip") as client:
        await client.finish()


async def test_a_capacity_measured_on_a_busy_machine_is_measured_again_when_it_is_quiet(monkeypatch, caplog):
    def load_busy(settings: Settings) -> tuple[list[Engine], Model]:
        model = replace(load(settings)[1], is_measured_busy=True)
        return [Engine(FakeRunner(slots=64)), Engine(FakeRunner(slots=64))], model

    caplog.set_level("INFO")
    is_busy, looked = [True], asyncio.Queue()
    monkeypatch.setattr(quiet_measurement, "QUIET_S", 0.01)
    monkeypatch.setattr(OtherLoad, "share", lambda load: looked.put_nowait(None) or (0.5 if is_busy[0] else 0.0))
    app = App(Settings(port=0, batch_sizes=(1, 4), max_load=0.5, max_sessions=60, workers=2), load_busy)
    await app.start()
    await app.loaded()
    try:
        before = app.room()
        for _ in range(3):
            await asyncio.wait_for(looked.get(), 10)
        assert app.room() == before
        is_busy[0] = False
        async with asyncio.timeout(10):
            while "measured again" not in caplog.text:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert before == 8 and app.room() == 60
        _, body = await asyncio.to_thread(get, app.url + "/readyz")
        assert body["profiles"]["default"]["capacity"]["roundtrip"] == 60
        async with talk(app.url, "/v1/encode") as client:
            pool = POOLS["encode"]
            times = await asyncio.gather(*(device.measure(pool, 1) for device in app._devices.all))
            assert sorted(times, key=str) == [0.001, None]  # no measurement runs while a session is open
            await client.finish()
    finally:
        await app.stop()


async def test_workers_share_the_sessions():
    runners = [FakeRunner(slots=2), FakeRunner(slots=2)]
    made = Model("fake", {"default": CONFIG}, "default")
    app = App(Settings(port=0, max_sessions=4), lambda settings: ([Engine(runner) for runner in runners], made))
    await app.start()
    await app.loaded()
    try:
        async with AsyncExitStack() as stack:
            for _ in range(4):
                client = await stack.enter_async_context(talk(app.url, "/v1/decode"))
                await client.send(tokens_of([1] * 12).tobytes(), Flush())
                await client.hear_until(Flushed)
                assert client.output == s16(audio_of(tokens_of([1] * 12)))
            with pytest.raises(InvalidStatus):
                await stack.enter_async_context(talk(app.url, "/v1/decode"))
        assert all(runner.steps for runner in runners)
    finally:
        await app.stop()


def test_the_table_has_every_profile_and_the_time_of_every_step():
    table = capacity_table(SETTINGS, load).splitlines()
    assert [line.split() for line in table if line.split()[:1] == ["default"]] == [
        ["default", "315", "5", "9", "4"],
        ["default", "encode", "20.0", "30.0"],
        ["default", "decode", "10.0", "20.0"],
    ]
    assert "50%" in table[0]


def test_the_command_measures_prints_and_exits(capsys):
    assert main(["--capacity", "--model", str(GOLDEN), "--profiles", "default", "--batch-sizes", "1,2"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    (_, _, *counts), *steps = (cells for cells in lines if cells[:1] == ["default"])
    assert all(int(count) >= 1 for count in counts) and all(float(ms) > 0 for row in steps for ms in row[2:])
