"""The ASGI application itself: loading the model, paths below a prefix, refusals, and how connections end."""

import asyncio
import threading

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from neucodec_streaming.client import Tokens
from neucodec_streaming.client import connect as open_session
from neucodec_streaming.engine.engine import Engine
from neucodec_streaming.errors import ConfigError, DeviceError, ModelError
from neucodec_streaming.server.asgi import Application, create_app
from neucodec_streaming.server.asgi.application import path_below
from neucodec_streaming.server.asgi.socket import is_clean_end
from neucodec_streaming.server.settings.fields import Settings
from tests.server.asgi.hosting import hypercorn_server, uvicorn_server
from tests.server.hosting import DEADLINE_S, s16, talk
from tests.server.test_app import MODEL, get
from tests.server.test_resume import LEVELS, Caller
from tests.streaming.engine.fake import FakeRunner, speech, tokens_of

SETTINGS = Settings(max_load=1e9, max_behind_s=1e9, drain_s=0.1, max_message_bytes=30_000)


def load_fake(settings):
    return [Engine(FakeRunner())], MODEL


def made(load=load_fake, settings=SETTINGS) -> Application:
    return Application(settings, load, apart=False)


async def until_ready(url: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while (await asyncio.to_thread(get, url + "/readyz"))[0] != 200:
            pass


# Loading the model


async def test_without_a_lifespan_the_first_request_loads_the_model_and_readyz_is_503_until_then():
    go_on = threading.Event()

    def load(settings):
        assert go_on.wait(DEADLINE_S)
        return load_fake(settings)

    codec = made(load)
    app = Starlette(routes=[Mount("/codec", codec)])  # it sends no lifespan messages to mounted applications
    async with uvicorn_server(app) as url:
        status, body = await asyncio.to_thread(get, url + "/codec/readyz")
        assert status == 503 and "not loaded yet" in body["reason"]
        assert (await asyncio.to_thread(get, url + "/codec/healthz"))[0] == 200
        go_on.set()
        await until_ready(url + "/codec")
        async with talk(url + "/codec", "/v1/encode") as session:
            await session.finish()
    await codec.app.stop()


async def test_a_load_failure_stops_the_host_with_its_reason():
    def load(settings):
        raise ModelError("model.safetensors is cut short")

    with pytest.raises(ModelError, match="cut short"):
        async with made(load).lifespan():
            pass
    heard, said = asyncio.Queue(), []
    heard.put_nowait({"type": "lifespan.startup"})

    async def send(message):
        said.append(message)

    await made(load)({"type": "lifespan"}, heard.get, send)
    assert said == [{"type": "lifespan.startup.failed", "message": "model.safetensors is cut short"}]


async def test_a_load_failure_at_the_first_request_is_reported_by_readyz():
    def load(settings):
        raise ModelError("model.safetensors is cut short")

    codec = made(load)
    async with uvicorn_server(codec, lifespan="off") as url:
        async with asyncio.timeout(DEADLINE_S):
            while "failed to load" not in (await asyncio.to_thread(get, url + "/readyz"))[1]["reason"]:
                pass
        with pytest.raises(DeviceError, match=r"failed to load .*: use another server"):
            codec.app.ready()
    await codec.app.stop()


@pytest.mark.parametrize(("name", "value"), [("mqtt", "mqtt://127.0.0.1"), ("tls_cert", "cert.pem")])
def test_settings_that_belong_to_the_asgi_server_are_refused(name, value):
    with pytest.raises(ConfigError, match=f"{name} is set"):
        create_app(Settings(**{name: value} | ({"tls_key": "key.pem"} if name == "tls_cert" else {})))


def test_settings_default_to_the_environment(monkeypatch):
    monkeypatch.setenv("NEUCODEC_MAX_SESSIONS", "0")
    with pytest.raises(ConfigError, match="max_sessions"):
        create_app()


# Paths


@pytest.mark.parametrize(
    ("path", "root_path", "below"),
    [
        ("/v1/encode", "", "/v1/encode"),
        ("/codec/v1/encode", "/codec", "/v1/encode"),
        ("/codec/", "/codec/", "/"),
        ("/v1/encode", "/codec", "/v1/encode"),  # as hypercorn does it
        ("/codecs", "/codec", "/codecs"),
    ],
)
def test_paths_are_relative_to_the_root(path, root_path, below):
    assert path_below(path, root_path) == below


async def test_client_and_page_are_served_below_prefixes_of_a_proxy_and_of_a_host():
    codec = made()
    app = Starlette(routes=[Mount("/inner", codec)], lifespan=codec.lifespan)
    async with uvicorn_server(app, root_path="/outer") as url:
        samples = speech(*LEVELS)
        tokens = [part async for part in _tokens_of(url + "/inner", samples)]
        assert b"".join(tokens) == tokens_of(LEVELS).tobytes()
        async with httpx.AsyncClient(base_url=url.replace("ws", "http", 1)) as web:
            page = await web.get("/inner/")
            assert page.status_code == 200 and "text/html" in page.headers["Content-Type"]
            tag = page.headers["ETag"]
            assert (await web.get("/inner/", headers={"If-None-Match": tag})).status_code == 304
            assert (await web.head("/inner/")).headers["Content-Length"] == str(len(page.content))
            assert (await web.get("/inner/v1/encode")).status_code == 426
            assert (await web.get("/inner/v1/encode%3Fprofile=x")).status_code == 404
            assert (await web.get("/inner/metrics")).text.count("neucodec_sessions")


async def _tokens_of(url: str, samples):
    async with open_session(url, kind="encode") as session:
        await session.send(samples)
        await session.end()
        async for event in session:
            if isinstance(event, Tokens):
                yield event.tokens.tobytes()


# End of a connection


async def test_a_body_that_is_too_long_is_refused():
    async with uvicorn_server(made()) as url, httpx.AsyncClient(base_url=url.replace("ws", "http", 1)) as web:
        response = await web.post("/v1/audio/speech", content=b"x" * 40_000)
        assert response.status_code == 413 and response.json()["code"] == "bad_message"


async def test_an_asgi_server_without_denial_responses_closes_refused_handshakes():
    codec, said = made(), []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        said.append(message)

    async with codec.lifespan():
        scope = {"type": "websocket", "path": "/v1/sing", "headers": []}
        await codec(scope, receive, send)
    assert said == [{"type": "websocket.close"}]


@pytest.mark.parametrize(
    ("event", "clean"),
    [
        ({"code": 1000}, True),
        ({"code": 1001, "reason": ""}, True),
        ({"code": 1005, "reason": ""}, True),
        ({"code": 1005}, False),
        ({"code": 1006, "reason": ""}, False),
        ({"code": 1012}, False),
        ({}, False),
    ],
)
def test_only_a_closing_handshake_of_the_client_ends_its_session(event, clean):
    assert is_clean_end(event) is clean


async def test_under_hypercorn_a_lost_connection_resumes_to_the_byte():
    async with hypercorn_server(made()) as url:
        await until_ready(url)
        caller = Caller("/v1/encode")
        await caller.call(url)
        await caller.say(s16(speech(*LEVELS[:9])))
        caller.lose()
        assert (await caller.call(url)).resumed == "exact"
        await caller.say(s16(speech(*LEVELS))[len(s16(speech(*LEVELS[:9]))) :])
        await caller.finish()
        assert caller.heard == tokens_of(LEVELS).tobytes()
