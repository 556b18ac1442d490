"""The server before, without and after loading its model."""

import asyncio
import json
import threading
import urllib.error
import urllib.request

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from neucodec_streaming.config import StreamConfig
from neucodec_streaming.engine.engine import Engine
from neucodec_streaming.errors import ConfigError, ModelError
from neucodec_streaming.server.app import App
from neucodec_streaming.server.model import Model, latency_ms
from neucodec_streaming.server.settings.fields import Settings
from tests.server.hosting import DEADLINE_S, talk
from tests.streaming.engine.fake import CONFIG, FakeRunner

MODEL = Model("fake", {"default": CONFIG}, "default")


def get(url: str) -> tuple[int, dict]:
    try:
        with urllib.request.urlopen(url.replace("ws://", "http://"), timeout=DEADLINE_S) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


async def test_a_loading_server_is_live_but_not_ready():
    go_on = threading.Event()

    def load(settings: Settings) -> tuple[list[Engine], Model]:
        assert go_on.wait(DEADLINE_S)
        return [Engine(FakeRunner())], MODEL

    app = App(Settings(port=0), load)
    await app.start()
    try:
        assert await asyncio.to_thread(get, app.url + "/healthz") == (200, {"alive": True})
        status, body = await asyncio.to_thread(get, app.url + "/readyz")
        assert status == 503 and body["ready"] is False and "loaded" in body["reason"]
        with pytest.raises(InvalidStatus) as caught:
            await connect(app.url + "/v1/encode")
        assert caught.value.response.status_code == 503 and "Retry-After" in caught.value.response.headers
        go_on.set()
        await app.loaded()
        assert (await asyncio.to_thread(get, app.url + "/readyz"))[0] == 200
        async with talk(app.url, "/v1/encode") as client:
            await client.finish()
    finally:
        go_on.set()
        await app.stop()


@pytest.mark.parametrize("error", [ModelError("model.safetensors is cut short"), ConfigError("device 'tpu'")])
async def test_a_load_failure_is_reported_with_its_reason(error):
    def load(settings: Settings) -> tuple[list[Engine], Model]:
        raise error

    app = App(Settings(port=0), load)
    await app.start()
    try:
        with pytest.raises(type(error), match=str(error)):
            await app.loaded()
        assert (await asyncio.to_thread(get, app.url + "/readyz"))[0] == 503
    finally:
        await app.stop()


async def test_stopping_closes_open_sessions_with_service_restart(caplog):
    caplog.set_level("INFO")
    app = App(Settings(port=0), lambda settings: ([Engine(FakeRunner())], MODEL))
    await app.start()
    await app.loaded()
    async with talk(app.url, "/v1/encode") as client:
        stopping = asyncio.create_task(app.stop())
        await asyncio.wait_for(client.socket.wait_closed(), DEADLINE_S)
        await stopping
        assert client.socket.close_code == 1012
    assert app.sessions == 0 and "closed: stop, 0 in" in caplog.text


def test_the_latency_of_each_kind_follows_from_its_schedule():
    config = StreamConfig(5, 5)
    assert [latency_ms(kind, config) for kind in ("encode", "decode", "roundtrip")] == [215.0, 200.0, 315.0]


def test_an_unknown_profile_is_refused_with_the_known_names():
    assert MODEL.profile(None) == ("default", CONFIG)
    with pytest.raises(ConfigError, match=r"'best'.*default"):
        MODEL.profile("best")


@pytest.mark.parametrize(
    ("is_local", "keys", "warns"), [(True, (), False), (False, (), True), (False, ("k" * 22,), False)]
)
async def test_a_public_server_without_keys_logs_a_warning(is_local, keys, warns, caplog, monkeypatch):
    monkeypatch.setattr(App, "_is_local", is_local)  # the test itself listens on loopback
    app = App(Settings(port=0, api_keys=keys), lambda settings: ([Engine(FakeRunner())], MODEL))
    await app.start()
    await app.loaded()
    await app.stop()
    assert ("set API keys" in caplog.text) is warns
