"""Sessions through nginx and HAProxy with the shipped configuration, over TLS, in front of two replicas."""

import asyncio
import http.client
import json
import socket
import threading
import time
from contextlib import AsyncExitStack, ExitStack

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from neucodec_streaming.engine.engine import Engine
from neucodec_streaming.protocol.messages import Flush, Flushed
from neucodec_streaming.server.app import App
from neucodec_streaming.server.model import Model
from neucodec_streaming.server.sessions.session import RESTART_STATUS
from neucodec_streaming.server.settings.fields import Settings
from tests.deploy.proxy import PROXIES, running
from tests.server.hosting import DEADLINE_S, hosted, s16, talk
from tests.server.test_resume import Caller
from tests.streaming.engine.fake import CONFIG, FakeRunner, audio_of, speech, tokens_of


@pytest.fixture(params=PROXIES)
def proxy_name(request):
    return request.param


def place(host) -> str:
    return host.url.removeprefix("ws://")


@pytest.fixture
def replicas():
    with ExitStack() as stack:
        yield [stack.enter_context(hosted(FakeRunner(), max_sessions=2)) for _ in range(2)]


@pytest.fixture
def proxy(proxy_name, replicas, tmp_path):
    with running(proxy_name, tmp_path, [place(host) for host in replicas]) as made:
        yield made


def get(proxy, path: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPSConnection("localhost", proxy.port, timeout=DEADLINE_S, context=proxy.trust)
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.headers, response.read()


async def test_sessions_pass_through_byte_for_byte_and_close_with_1000(proxy):
    levels = list(range(23))
    async with talk(proxy.url, "/v1/encode", ssl=proxy.trust) as client:
        await client.send(s16(speech(*levels)), Flush())
        await client.hear_until(Flushed)
        assert (await client.finish()).output == 23
    assert np.array_equal(client.tokens, tokens_of(levels))
    async with talk(proxy.url, "/v1/decode", ssl=proxy.trust) as client:
        await client.send(tokens_of(levels).tobytes())
        assert (await client.finish()).output == 23 * 480
    assert client.output == s16(audio_of(tokens_of(levels)))


async def test_pings_are_answered_end_to_end_and_a_large_message_passes(proxy):
    async with talk(proxy.url, "/v1/encode", ssl=proxy.trust) as client:
        await asyncio.wait_for(await client.socket.ping(), DEADLINE_S)
        await client.send(s16(speech(*[1] * 400)))  # 256,000 bytes
        assert (await client.finish()).output == 400


async def test_error_statuses_pass_through(proxy):
    async with talk(proxy.url, "/v1/encode", ssl=proxy.trust) as client:
        await client.socket.send(b"odd")
        assert (await client.fail()).code == "bad_audio"
        assert client.socket.close_code == 1007


async def test_clients_of_a_full_replica_reach_another_with_free_slots(proxy, replicas):
    async with (
        talk(replicas[0].url, "/v1/encode"),
        talk(replicas[0].url, "/v1/encode"),
    ):  # full, which the proxy does not know
        for _ in range(4):
            async with talk(proxy.url, "/v1/encode", ssl=proxy.trust) as client:
                await client.finish()
    assert any(b'code="full"' in refusals(host) for host in replicas[:1]), "the full one was asked too"


def refusals(host) -> bytes:
    connection = http.client.HTTPConnection(place(host), timeout=DEADLINE_S)
    connection.request("GET", "/metrics")
    return connection.getresponse().read()


async def test_when_all_are_full_the_answer_is_503_with_retry_after_and_the_reason(proxy, replicas):
    async with AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(talk(proxy.url, "/v1/encode", ssl=proxy.trust))
        assert [host.app.sessions for host in replicas] == [2, 2], "the fewest sessions first"
        with pytest.raises(InvalidStatus) as caught:
            await stack.enter_async_context(talk(proxy.url, "/v1/encode", ssl=proxy.trust))
    response = caught.value.response
    assert response.status_code == 503 and response.headers["Retry-After"]
    assert json.loads(response.body)["code"] == "full"


async def test_invalid_requests_get_the_servers_status_through_the_proxy(proxy):
    for target, status in (("/v1/encode?profile=best", 400), ("/v1/sing", 404)):
        with pytest.raises(InvalidStatus) as caught:
            async with talk(proxy.url, target, ssl=proxy.trust):
                pass
        assert caught.value.response.status_code == status


async def test_a_replica_that_stops_ends_its_sessions_with_its_status_and_gets_no_new_ones(proxy_name, tmp_path):
    with hosted(FakeRunner()) as stays, ExitStack() as stack:
        goes = stack.enter_context(hosted(FakeRunner()))
        with running(proxy_name, tmp_path, [place(goes), place(stays)]) as proxy:
            async with (
                talk(proxy.url, "/v1/encode", ssl=proxy.trust) as one,
                talk(proxy.url, "/v1/encode", ssl=proxy.trust) as two,
            ):
                await asyncio.to_thread(stack.close)
                closed = [asyncio.create_task(each.socket.wait_closed()) for each in (one, two)]
                await asyncio.wait(closed, return_when=asyncio.FIRST_COMPLETED, timeout=DEADLINE_S)
                assert {one.socket.close_code, two.socket.close_code} == {RESTART_STATUS, None}
            for _ in range(4):
                async with talk(proxy.url, "/v1/encode", ssl=proxy.trust) as client:
                    await client.finish()


async def test_a_sentence_interrupted_by_a_stopping_replica_is_finished_by_another(proxy_name, tmp_path):
    levels = list(range(1, 31))
    with ExitStack() as one, ExitStack() as two:
        hosts = {stack: stack.enter_context(hosted(FakeRunner(), resume_s=30.0)) for stack in (one, two)}
        with running(proxy_name, tmp_path, [place(host) for host in hosts.values()]) as proxy:
            client = Caller("/v1/encode", ssl=proxy.trust)
            await client.call(proxy.url)
            await client.say(s16(speech(*levels[:20])))
            await client.hear()
            (its,) = (stack for stack, host in hosts.items() if host.app.sessions)
            await asyncio.to_thread(its.close)
            with pytest.raises(ConnectionClosed) as caught:
                while True:
                    await client.hear()
            assert caught.value.rcvd is not None and caught.value.rcvd.code == RESTART_STATUS
            client.session.lose()
            assert (await client.call(proxy.url)).resumed == "approximate"
            await client.say(s16(speech(*levels[20:])))
            assert (await client.finish()).output == 30
            assert client.heard == tokens_of(levels).tobytes()


async def test_a_replica_that_is_still_loading_gets_sessions_only_once_it_is_ready(proxy_name, tmp_path):
    gate = threading.Event()

    def load(settings: Settings) -> tuple[list[Engine], Model]:
        assert gate.wait(DEADLINE_S)
        return [Engine(FakeRunner())], Model("late", {"default": CONFIG}, "default")

    late = App(Settings(port=0), load)
    await late.start()
    try:
        with hosted(FakeRunner()) as ready:
            places = [late.url.removeprefix("ws://"), place(ready)]
            with running(proxy_name, tmp_path, places) as proxy:
                for _ in range(4):
                    async with talk(proxy.url, "/v1/encode", ssl=proxy.trust) as client:
                        assert client.seen[0].model == "fake"
                        await client.finish()
                gate.set()
                await late.loaded()
                deadline = time.monotonic() + DEADLINE_S
                seen = set()
                while "late" not in seen:
                    assert time.monotonic() < deadline, "the replica that became ready gets no sessions"
                    async with talk(proxy.url, "/v1/encode", ssl=proxy.trust) as client:
                        seen.add(client.seen[0].model)
                        await client.finish()
    finally:
        gate.set()
        await late.stop()


async def test_the_proxy_overrides_forged_addresses_and_hosts(proxy_name, tmp_path):
    asked = []

    def answer(socket, request):
        if request.path != "/readyz":
            asked.append(request.headers)
        return socket.respond(200, "")

    async with serve(lambda socket: None, "127.0.0.1", 0, process_request=answer) as server:
        where = f"127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        with running(proxy_name, tmp_path, [where, where]) as proxy, pytest.raises(InvalidStatus):
            async with connect(
                proxy.url + "/v1/encode", ssl=proxy.trust, additional_headers={"X-Forwarded-For": "192.0.2.1"}
            ):
                pass
    (headers,) = asked
    assert headers.get_all("X-Forwarded-For") == ["127.0.0.1"]
    assert headers["X-Forwarded-Proto"] == "https" and headers["Upgrade"] == "websocket"
    assert headers["Host"] == f"localhost:{proxy.port}"


async def test_access_tokens_are_never_logged(proxy_name, tmp_path):
    with hosted(FakeRunner(), max_sessions=1) as host, socket.create_server(("127.0.0.1", 0)) as gone:
        nobody = f"127.0.0.1:{gone.getsockname()[1]}"
        gone.close()  # an unreachable replica
        with running(proxy_name, tmp_path, [nobody, place(host)]) as proxy:
            target = "/v1/encode?access_token=s3cret"
            async with talk(proxy.url, target, ssl=proxy.trust) as client:
                with pytest.raises(InvalidStatus):
                    async with talk(proxy.url, target, ssl=proxy.trust):
                        pass
                await client.finish()
        assert "/v1/encode" in proxy.logged and "s3cret" not in proxy.logged


def test_metrics_are_not_public_and_plain_http_is_redirected_to_tls(proxy):
    assert get(proxy, "/metrics")[0] == 404
    status, _, body = get(proxy, "/readyz")
    assert status == 200 and json.loads(body)["ready"] is True
    connection = http.client.HTTPConnection("localhost", proxy.plain_port, timeout=DEADLINE_S)
    connection.request("GET", "/v1/encode", headers={"Host": "example.org"})
    response = connection.getresponse()
    assert (response.status, response.headers["Location"]) == (301, "https://example.org/v1/encode")
