"""Proxies of the environment: SOCKS for every kind of connection, no_proxy, and what cannot be used."""

import sys
from urllib.parse import urlsplit

import numpy as np
import pytest

from demos.language_model import Pace
from demos.speech_lm_server import stand_in
from neucodec_streaming.client.connection import connect
from neucodec_streaming.client.dial import Deadlines
from neucodec_streaming.client.mqtt.listener import listen
from neucodec_streaming.client.mqtt.session import open_at_broker
from neucodec_streaming.client.speech_lm import SpeechLM
from neucodec_streaming.errors import ConfigError, StreamingError
from neucodec_streaming.protocol.speech_lm import SpeechLMSpec
from neucodec_streaming.proxies import proxy_for
from tests.client.fake_server import fake_server
from tests.client.socks_server import PASSWORD, USER, socks_server
from tests.client.test_dial import refusal
from tests.server.mqtt.broker import broker, needs_mosquitto

HOST = "codec.invalid"
"""A name that only the proxy resolves."""
FAST = Pace(prompt_s=0, tokens_per_second=20_000, pause_every=10**9)
SHORT = Deadlines(open_s=5.0, close_s=0.2)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("http", "https", "ws", "wss", "mqtt", "socks", "all", "no"):
        for variable in (f"{name}_proxy", f"{name}_PROXY".upper()):
            monkeypatch.delenv(variable, raising=False)


def by_name(url: str) -> str:
    return url.replace("127.0.0.1", HOST)


async def spoken(url: str) -> int:
    async with SpeechLM(SpeechLMSpec(url)) as model, model.answer("Good morning.") as pieces:
        return sum([len(piece.tokens) async for piece in pieces])


@pytest.mark.parametrize(
    ("variable", "proxy"),
    [
        ("socks_proxy", "socks5h://127.0.0.1"),
        ("ALL_PROXY", f"socks5h://{USER.decode()}:{PASSWORD.decode()}@127.0.0.1"),
        ("all_proxy", "socks5h://127.0.0.1"),
        ("socks_proxy", "http://127.0.0.1"),
    ],
)
async def test_sessions_and_language_models_are_reached_through_a_socks_proxy(monkeypatch, variable, proxy):
    async with socks_server() as socks, fake_server() as server, stand_in(np.arange(30, dtype="u2"), FAST) as model:
        monkeypatch.setenv(variable, f"{proxy}:{socks.port}")
        async with connect(by_name(server.url)) as connection:
            assert connection.ready.model
        assert await spoken(by_name(model.url)) == 30
        assert socks.asked == [HOST, HOST]


async def test_socks5_resolves_names_here(monkeypatch):
    async with socks_server() as socks, fake_server() as server:
        monkeypatch.setenv("socks_proxy", f"socks5://127.0.0.1:{socks.port}")
        async with connect(server.url.replace("127.0.0.1", "127.0.0.2")):
            assert socks.asked == ["127.0.0.2"]
        await refusal(by_name(server.url))
        assert socks.asked == ["127.0.0.2"]


@needs_mosquitto
async def test_a_broker_on_the_loopback_is_reached_directly(monkeypatch, tmp_path):
    monkeypatch.setenv("mqtt_proxy", "http://127.0.0.1:1")
    with broker(tmp_path) as mosquitto:
        async with listen(mosquitto.url, "s"):
            pass


@needs_mosquitto
async def test_a_broker_is_reached_through_a_socks_proxy(monkeypatch, tmp_path):
    with broker(tmp_path) as mosquitto:
        async with socks_server() as socks:
            monkeypatch.setenv("ALL_PROXY", f"socks5h://127.0.0.1:{socks.port}")
            with pytest.raises(StreamingError, match="no bridge answered"):
                async with open_at_broker(by_name(mosquitto.url), "s", deadlines=Deadlines(open_s=0.5, close_s=0.2)):
                    pass
            assert socks.asked == [HOST]


async def test_no_proxy_and_loopback_bypass_the_proxy(monkeypatch):
    async with socks_server() as socks, fake_server() as server:
        monkeypatch.setenv("ALL_PROXY", f"socks5h://127.0.0.1:{socks.port}")
        async with connect(server.url):
            pass
        monkeypatch.setenv("NO_PROXY", ".invalid,10.0.0.1")
        assert "cannot be resolved" in await refusal(by_name(server.url))
        with pytest.raises(StreamingError, match="does not respond"):
            await spoken(f"http://{HOST}:1/v1")
        with pytest.raises(StreamingError, match="no broker"):
            async with open_at_broker(f"mqtt://{HOST}", "s", deadlines=SHORT):
                pass
        assert proxy_for("mqtt://10.0.0.1:1883") is None
        assert socks.asked == []


async def test_a_proxy_that_refuses_is_named(monkeypatch):
    async with socks_server(refuses=True) as socks:
        monkeypatch.setenv("socks_proxy", f"socks5h://ann:secret@127.0.0.1:{socks.port}")
        proxy = f"127.0.0.1:{socks.port}"
        said = [await refusal(f"ws://{HOST}:1")]
        with pytest.raises(StreamingError) as refused:
            await spoken(f"http://{HOST}:1/v1")
        said.append(str(refused.value))
        with pytest.raises(StreamingError) as refused:
            async with open_at_broker(f"mqtt://{HOST}", "s", deadlines=SHORT):
                pass
        said.append(str(refused.value))
        assert all(f"the proxy {proxy}" in one and "secret" not in one for one in said), said


async def test_without_the_libraries_the_extra_is_named(monkeypatch):
    for library in ("python_socks", "socksio", "socks"):
        monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setenv("ALL_PROXY", "socks5://ann:secret@127.0.0.1:1")
    said = [await refusal(f"ws://{HOST}:1")]
    for use in (lambda: spoken(f"http://{HOST}:1/v1"), lambda: open_at_broker(f"mqtt://{HOST}", "s").__aenter__()):
        with pytest.raises(ConfigError) as refused:
            await use()
        said.append(str(refused.value))
    for one in said:
        assert "pip install '.[socks]'), or set NO_PROXY=codec.invalid" in one and "secret" not in one


@pytest.mark.parametrize(
    ("variable", "proxy", "says"),
    [
        ("https_proxy", "http://ann:secret@127.0.0.1:port", "the proxy, '127.0.0.1:port',"),
        ("https_proxy", "ftp://127.0.0.1", "scheme ftp is unknown"),
        ("https_proxy", "http://", "use one like http://HOST:PORT or socks5://HOST:PORT"),
        ("all_proxy", "http://h/path", "more than a host and a port"),
        ("https_proxy", "http://ann:secret@127.0.0.1:1", "through the proxy 127.0.0.1:1: check"),
        ("https_proxy", "http://ann:secret\uff1a@127.0.0.1:1", "it is not a valid URL"),
        ("https_proxy", "http://@127.0.0.1:1", "a user but no password"),
        ("https_proxy", "http://ann:secret%ff@127.0.0.1:1", "not UTF-8"),
    ],
)
async def test_unusable_proxies_are_named_without_their_password(monkeypatch, variable, proxy, says):
    monkeypatch.setenv(variable, proxy)
    message = await refusal("wss://example.invalid")
    assert says in message and "secret" not in message
    if "through" not in says:
        with pytest.raises(ConfigError):
            SpeechLM(SpeechLMSpec("https://example.invalid/v1"))


@pytest.mark.parametrize(
    ("url", "environment", "expected"),
    [
        ("ws://h:1", {"http_proxy": "http://p:1", "https_proxy": "http://q:1"}, "http://q:1"),
        ("wss://h", {"http_proxy": "http://p:1"}, None),
        ("https://h", {"https_proxy": "p:3128"}, "http://p:3128"),
        ("https://h", {"https_proxy": "http://p:1", "socks_proxy": "socks5://s"}, "http://p:1"),
        ("wss://h", {"https_proxy": "http://p:1", "socks_proxy": "socks5://s"}, "socks5://s:1080"),
        ("mqtt://h:1883", {"https_proxy": "http://p:1", "all_proxy": "http://p:1"}, None),
        ("mqtts://h:8883", {"all_proxy": "socks4a://s:9"}, "socks4a://s:9"),
        ("wss://h", {"https_proxy": "http://p:1", "no_proxy": "h:443"}, None),
    ],
)
def test_each_connection_has_its_proxy(monkeypatch, url, environment, expected):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(url) == expected
    monkeypatch.setenv("no_proxy", urlsplit(url).hostname)
    assert proxy_for(url) is None
