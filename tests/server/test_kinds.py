"""A server of a single kind: its paths, its capacity, and the part of the model that it keeps."""

import json
import urllib.error
import urllib.request

import numpy as np
import pytest

from neucodec_streaming.errors import ConfigError
from neucodec_streaming.protocol.messages import Done, End
from neucodec_streaming.server.settings.fields import Settings
from tests.server.hosting import hosted, talk

OTHERS = {"decode": ("encode", "roundtrip"), "encode": ("decode", "roundtrip")}


def fetched(url: str, body: bytes | None = None) -> tuple[int, dict]:
    try:
        with urllib.request.urlopen(url.replace("ws://", "http://"), body, timeout=10) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.mark.parametrize("kind", ["decode", "encode"])
async def test_only_the_configured_kind_is_served(kind):
    with hosted(kinds=(kind,), max_sessions=1, batch_sizes=(1,)) as host:
        for other in OTHERS[kind]:
            status, body = fetched(f"{host.url}/v1/{other}")
            assert status == 404 and body["code"] == "bad_path" and f"/v1/{kind}, " in body["message"]
            assert f"/v1/{other}" not in body["message"].partition(":")[2]
        status, body = fetched(f"{host.url}/readyz")
        assert status == 200 and list(body["profiles"]["default"]["capacity"]) == [kind]
        async with talk(host.url, f"/v1/{kind}") as client:
            payload = np.arange(20, dtype="<u2").tobytes() if kind == "decode" else bytes(20 * 640)
            await client.send(payload, End())
            done = await client.hear_until(Done)
            assert done.output == (9600 if kind == "decode" else 20)


async def test_a_server_that_only_encodes_refuses_speech():
    with hosted(kinds=("encode",), max_sessions=1, batch_sizes=(1,), speech_lm_url="http://127.0.0.1:1/v1") as host:
        for _ in range(2):  # a refusal reserves nothing
            status, body = fetched(f"{host.url}/v1/audio/speech", b'{"input": "Good morning."}')
            assert status == 400 and "decode sessions are not served here" in body["error"]["message"]
        async with talk(host.url, "/v1/encode") as client:
            await client.finish()


@pytest.mark.parametrize("kinds", [(), ("decode", "decode"), ("listen",)])
def test_invalid_kinds_are_refused(kinds):
    with pytest.raises(ConfigError, match="kinds is"):
        Settings(kinds=kinds)
