"""What pages of other origins may read, and the answer to a plain GET of a session's address."""

import json
import urllib.error
import urllib.request

import pytest

from tests.server.hosting import hosted, talk
from tests.streaming.engine.fake import FakeRunner

OURS, OTHER = "https://app.example.org", "https://example.net"
SHARED = "Access-Control-Allow-Origin"
KEY = "correct-horse-battery-staple"


def get(host, path: str, origin: str | None = OURS) -> tuple[int, dict[str, str], str]:
    headers = {} if origin is None else {"Origin": origin}
    request = urllib.request.Request(host.url.replace("ws://", "http://") + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, dict(response.headers), response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read().decode()


@pytest.fixture(scope="module")
def picky():
    with hosted(FakeRunner(), allow_origins=("https://*.example.org",), api_keys=(KEY,)) as host:
        yield host


@pytest.mark.parametrize(
    "path", ["/neucodec.js", "/readyz", "/v1/encode", f"/v1/encode?access_token={KEY}", "/v1/none"]
)
def test_only_allowed_origins_can_read_modules_and_refusals(picky, path):
    _, headers, _ = get(picky, path)
    assert (headers[SHARED], headers["Vary"]) == (OURS, "Origin")
    for other in (OTHER, None):
        _, headers, _ = get(picky, path, other)
        assert SHARED not in headers and headers["Vary"] == "Origin"


def test_without_an_origin_list_every_origin_can_read_everything_but_the_metrics():
    with hosted(FakeRunner()) as host:
        assert get(host, "/neucodec.js", OTHER)[1][SHARED] == "*"
        assert get(host, "/v1/encode?profile=none", OTHER)[1][SHARED] == "*"
        assert SHARED not in get(host, "/metrics", OTHER)[1]


async def test_a_plain_get_of_a_session_gives_the_reason_for_a_refusal():
    with hosted(FakeRunner(), max_sessions=1) as host:
        status, headers, body = get(host, "/v1/encode")
        assert (status, headers["Upgrade"], json.loads(body)["code"]) == (426, "websocket", "no_websocket")
        assert get(host, "/v1/decode?voice=nobody")[0] == 400
        async with talk(host.url, "/v1/encode"):
            status, headers, body = get(host, "/v1/encode")
            assert (status, headers["Retry-After"], json.loads(body)["code"]) == (503, "1", "full")
        await host.emptied()
        assert get(host, "/v1/encode")[0] == 426
        async with talk(host.url, "/v1/encode") as found:  # the plain GETs took no slot
            await found.finish()
