"""Admission seen from outside: statuses before the upgrade, session limits, TLS, and logs without keys."""

import logging
from collections.abc import Iterator

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from neucodec_streaming.client import connect as open_session
from neucodec_streaming.errors import AuthError, LimitError
from neucodec_streaming.protocol.messages import parse_server_message
from neucodec_streaming.server.auth.keys import key_line, new_key
from tests.server.auth.test_tls import make_pair, needs_openssl, trusting
from tests.server.hosting import DEADLINE_S, Host, hosted, talk
from tests.streaming.engine.fake import FakeRunner

PATH = "/v1/encode"


def fake_host(**settings):
    return hosted(FakeRunner(), **settings)


async def refused(url: str, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with pytest.raises(InvalidStatus) as caught:
        await connect(url, additional_headers=named, open_timeout=DEADLINE_S)
    return caught.value.response


def code_of(response: Response) -> str:
    return parse_server_message(response.body.decode()).code


class Locked:
    def __init__(self, host: Host, key: str) -> None:
        self.url, self.emptied, self.key = host.url, host.emptied, key
        self.bearer = {"Authorization": f"Bearer {key}"}


@pytest.fixture
def locked(tmp_path) -> Iterator[Locked]:
    key, path = new_key(), tmp_path / "keys"
    path.write_text(key_line("alice", key) + "\n")
    with fake_host(api_keys_file=str(path), max_sessions_per_key=2) as host:
        yield Locked(host, key)


async def test_a_missing_or_wrong_key_gets_401_and_the_right_one_a_session(locked):
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {locked.key}"}):
        response = await refused(locked.url + PATH, **headers)
        assert response.status_code == 401 and response.headers["WWW-Authenticate"] == "Bearer"
        assert code_of(response) == "unauthorized"
    async with talk(locked.url, PATH, additional_headers=locked.bearer) as session:
        await session.finish()
    async with talk(locked.url, f"{PATH}?access_token={locked.key}") as session:
        await session.finish()


async def test_the_client_raises_the_error_class_of_a_refusal(locked):
    with pytest.raises(AuthError, match="asks for an API key"):
        async with open_session(locked.url, kind="encode"):
            pass
    async with open_session(locked.url, kind="encode", api_key=locked.key):
        pass


async def test_sessions_of_one_key_are_limited_until_one_ends(locked):
    target = f"{PATH}?access_token={locked.key}"
    async with talk(locked.url, target) as first, talk(locked.url, target):
        response = await refused(locked.url + target)
        assert response.status_code == 429 and response.headers["Retry-After"] == "5"
        assert code_of(response) == "too_many"
        await first.finish()
        await locked.emptied(1)
        async with talk(locked.url, target) as third:
            await third.finish()


async def test_keys_are_never_logged(locked, caplog):
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("websockets.client").setLevel(logging.CRITICAL)  # the complement of this test
        async with talk(locked.url, f"{PATH}?access_token={locked.key}") as session:
            await session.finish()
        async with talk(locked.url, PATH, additional_headers=locked.bearer) as session:
            await session.finish()
        for query in ("access_token=" + locked.key[:-1], f"acces_token={locked.key}", f"received={locked.key}"):
            await refused(f"{locked.url}{PATH}?{query}")
        await locked.emptied()
    assert "of alice at 127.0.0.1 opened" in caplog.text
    sessions = {record.session for record in caplog.records if record.getMessage().startswith("session ")}
    assert len(sessions) == 2, "the lines about a session have its id as a field too"
    assert locked.key[:-1] not in caplog.text


async def test_probes_need_no_key(locked):
    for path in ("/healthz", "/readyz"):
        assert (await refused(locked.url + path)).status_code == 200


async def test_attempts_beyond_the_limit_get_429_with_retry_after():
    with fake_host(max_attempts_per_minute=2) as host:
        assert (await refused(host.url + PATH + "?profile=none")).status_code == 400
        async with talk(host.url, PATH) as session:
            await session.finish()
        response = await refused(host.url + PATH)
        assert response.status_code == 429 and 1 <= int(response.headers["Retry-After"]) <= 30
        with pytest.raises(LimitError, match="try again in"):
            async with open_session(host.url, kind="encode"):
                pass


async def test_an_origin_that_is_not_listed_gets_403():
    with fake_host(allow_origins=("https://example.org",)) as host:
        response = await refused(host.url + PATH, Origin="https://attacker.example")
        assert response.status_code == 403 and code_of(response) == "forbidden"
        async with talk(host.url, PATH, origin="https://example.org") as session:
            await session.finish()


async def test_clients_of_a_trusted_proxy_count_separately():
    with fake_host(trusted_proxies=("127.0.0.1",), max_sessions_per_address=1) as host:
        first, second = ({"X-Forwarded-For": f"203.0.113.9, 192.0.2.{number}"} for number in (1, 2))
        async with talk(host.url, PATH, additional_headers=first), talk(host.url, PATH, additional_headers=second):
            assert (await refused(host.url + PATH, **first)).status_code == 429


async def test_a_session_refused_by_a_full_server_does_not_count_for_its_address():
    with fake_host(max_sessions=1, max_sessions_per_address=2) as host:
        async with talk(host.url, PATH) as first:
            for _ in range(3):
                assert (await refused(host.url + PATH)).status_code == 503
            await first.finish()
        await host.emptied()
        async with talk(host.url, PATH) as second:
            await second.finish()


@needs_openssl
async def test_with_a_certificate_sessions_are_encrypted(tmp_path):
    cert, key = make_pair(tmp_path, "site")
    with fake_host(tls_cert=str(cert), tls_key=str(key)) as host:
        assert host.url.startswith("wss://")
        async with talk(host.url, PATH, ssl=trusting((cert, key))) as session:
            await session.finish()
