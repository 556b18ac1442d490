"""Client faults one by one, next to a healthy session that must not be affected."""

import asyncio
import json
import threading
import urllib.error
import urllib.request
from contextlib import AsyncExitStack, asynccontextmanager

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from neucodec_streaming.errors import ConfigError
from neucodec_streaming.protocol.messages import End, Failure, Flush, Flushed
from neucodec_streaming.protocol.query import PATHS, QUERIES
from tests.server.hosting import DEADLINE_S, Talk, hosted, s16, talk
from tests.streaming.engine.fake import POOLS, FakeRunner, audio_of, speech, tokens_of

LEVELS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6]
TOKENS = tokens_of(LEVELS)


@pytest.fixture(scope="module")
def host():
    with hosted(FakeRunner(slots=4), max_sessions=4, max_message_bytes=16384) as running:
        yield running


@asynccontextmanager
async def unharmed(host):
    """A session is half finished while the body runs, and must then complete exactly."""
    data = s16(speech(*LEVELS))
    async with talk(host.url, "/v1/roundtrip") as healthy:
        await healthy.send(data[:12000])
        await healthy.hear()
        yield
        await healthy.send(data[12000:])
        await healthy.finish()
        assert healthy.output == s16(audio_of(TOKENS))
    await host.emptied()


async def spoil(client: Talk, message: bytes | str) -> Failure:
    """The client's own session would refuse to send `message`."""
    await client.socket.send(message)
    return await client.fail()


@pytest.mark.parametrize(
    ("target", "payload", "code", "close_code", "named"),
    [
        ("/v1/encode", b"abc", "bad_audio", 1007, "3 bytes"),
        ("/v1/encode?input_format=f32le", b"abcdef", "bad_audio", 1007, "6 bytes"),
        ("/v1/encode?input_format=f32le", np.array([0, np.nan], "<f4").tobytes(), "bad_audio", 1007, "nan"),
        ("/v1/roundtrip?input_format=f32le", np.array([np.inf], "<f4").tobytes(), "bad_audio", 1007, "inf"),
        ("/v1/encode?input_format=f32le", np.array([1e30], "<f4").tobytes(), "bad_audio", 1007, "full scale"),
        ("/v1/decode", b"abc", "bad_token", 1007, "3 bytes"),
        ("/v1/encode", bytes(16386), "too_large", 1009, "16384"),
        ("/v1/encode", "x" * 16385, "too_large", 1009, "16384"),
        ("/v1/encode", '{"type":"sing"}', "bad_message", 1002, "sing"),
        ("/v1/encode", '{"type":"ready"}', "bad_message", 1002, "flush"),
        ("/v1/encode", "not json", "bad_message", 1002, "JSON"),
        ("/v1/encode", "[1]", "bad_message", 1002, "object"),
        ("/v1/encode", '{"type":"mark"}', "bad_message", 1002, "id"),
    ],
)
async def test_a_bad_message_ends_its_session_with_an_error_that_names_it(
    host, target, payload, code, close_code, named
):
    async with unharmed(host), talk(host.url, target) as client:
        failure = await spoil(client, payload)
        assert failure.code == code and named in failure.message
        assert client.socket.close_code == close_code


async def test_anything_after_end_is_an_error(host):
    async with unharmed(host), talk(host.url, "/v1/encode") as client:
        await client.send(s16(speech(*LEVELS)))
        await client.socket.send('{"type":"end"}')
        await client.socket.send('{"type":"flush"}')
        client.session.send(End())
        with pytest.raises((AssertionError, ConnectionClosed)):
            # the totals may be sent before the flush is read; the connection then closes normally
            await client.fail()
            raise AssertionError
        assert client.socket.close_code in (1000, 1002)


async def test_an_oversized_message_closes_the_connection_with_1009(host):
    async with unharmed(host), talk(host.url, "/v1/encode") as client:
        await client.socket.send(bytes(200_000))
        with pytest.raises(ConnectionClosed):
            while True:
                await asyncio.wait_for(client.socket.recv(), DEADLINE_S)
        assert client.socket.close_code == 1009


async def test_invalid_utf8_ends_the_session(host):
    async with unharmed(host), talk(host.url, "/v1/encode") as client:
        await client.socket.send(b"\xff\xfe", text=True)
        await asyncio.wait_for(client.socket.wait_closed(), DEADLINE_S)
        assert client.socket.close_code == 1007


async def test_a_vanished_client_frees_its_slot(host):
    async with unharmed(host):
        for _ in range(2 * 4):
            async with talk(host.url, "/v1/roundtrip") as client:
                await client.send(s16(speech(*LEVELS)))
                client.socket.transport.abort()


async def test_a_client_that_leaves_during_the_handshake_frees_its_slot(host):
    for _ in range(8):
        reader, writer = await asyncio.open_connection(*host.url.removeprefix("ws://").split(":"))
        writer.write(b"GET /v1/encode HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        await asyncio.wait_for(reader.readline(), DEADLINE_S)
        writer.close()
    await host.emptied()
    async with unharmed(host):
        pass


async def refused(url: str) -> InvalidStatus:
    with pytest.raises(InvalidStatus) as caught:
        async with connect(url):
            pass
    return caught.value.response


@pytest.mark.parametrize(
    ("target", "status", "code", "named"),
    [
        ("/v1/sing", 404, "bad_path", [*PATHS, "/healthz"]),
        ("/../app.py", 404, "bad_path", [*PATHS]),
        ("/v1/encode?colour=blue", 400, "bad_config", ["colour", *QUERIES]),
        ("/v1/encode?input_format=opus", 400, "bad_config", ["opus", "mulaw"]),
        ("/v1/encode?input_rate=11025", 400, "bad_config", ["11025", "44100"]),
        ("/v1/encode?profile=best", 400, "bad_config", ["best", "default"]),
        ("/v1/decode?stats=maybe", 400, "bad_config", ["maybe"]),
    ],
)
async def test_an_invalid_url_is_refused_before_the_upgrade(host, target, status, code, named):
    response = await refused(host.url + target)
    body = json.loads(response.body)
    assert (response.status_code, body["code"]) == (status, code)
    assert all(name in body["message"] for name in named)


async def test_a_full_server_refuses_with_503_and_retry_after(host):
    async with AsyncExitStack() as stack:
        for kind in ("encode", "decode", "roundtrip", "encode"):
            await stack.enter_async_context(talk(host.url, f"/v1/{kind}"))
        response = await refused(host.url + "/v1/encode")
        assert response.status_code == 503 and int(response.headers["Retry-After"]) >= 1
        assert json.loads(response.body)["code"] == "full"
    await host.emptied()
    async with talk(host.url, "/v1/encode"):
        pass


def get(url: str) -> tuple[int, dict]:
    try:
        with urllib.request.urlopen(url.replace("ws://", "http://"), timeout=DEADLINE_S) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_probes_answer_over_plain_http(host):
    assert get(host.url + "/healthz") == (200, {"alive": True})
    status, body = get(host.url + "/readyz")
    assert status == 200 and body["ready"] and body["max_sessions"] == 4
    capacity = {"encode": 4, "decode": 4, "roundtrip": 4}
    assert body["profiles"] == {"default": {"chunk_frames": 5, "lookahead_frames": 5, "capacity": capacity}}
    assert get(host.url + "/nothing")[0] == 404


async def test_a_failed_step_ends_its_sessions_with_an_error_and_the_server_survives(host):
    async with talk(host.url, "/v1/encode") as client:
        host.runner.broken = RuntimeError("out of memory")
        await client.send(s16(speech(*LEVELS)))
        failure = await client.fail()
        host.runner.broken = None
        assert failure.code == "device" and "memory" not in failure.message
        assert client.socket.close_code == 1011
    async with unharmed(host):
        pass


async def test_a_flood_of_marks_is_an_error(host):
    async with unharmed(host), talk(host.url, "/v1/encode") as client:
        await client.socket.send(s16(speech(1)))
        for number in range(5000):
            await client.socket.send('{"type":"mark","id":%d}' % number)  # noqa: UP031
        failure = json.loads(await asyncio.wait_for(client.socket.recv(), DEADLINE_S))
        assert failure["code"] == "bad_message" and "marks" in failure["message"]


async def test_a_client_that_stops_reading_is_paused_and_loses_nothing():
    with hosted(FakeRunner(slots=2), max_sessions=2, max_queue_bytes=20_000, max_pending_seconds=5.0) as host:
        tokens = np.arange(20_000, dtype=np.uint16)
        async with talk(host.url, "/v1/decode", max_queue=1) as client:

            async def write() -> None:
                for packet in np.array_split(tokens, 40):
                    await client.socket.send(client.session.send_payload(packet.tobytes()))

            writing = asyncio.create_task(write())
            async with talk(host.url, "/v1/encode") as other:  # meanwhile another session is served
                for _ in range(100):
                    await other.send(s16(speech(*LEVELS)), Flush())
                    await other.hear_until(Flushed)
            assert sum(host.runner.committed[POOLS["decode"]]) < len(tokens), "what is not taken is not computed"
            while not writing.done():
                await client.hear()
            await client.finish()
            assert client.output == s16(audio_of(tokens))


async def test_a_client_that_never_reads_is_disconnected():
    with hosted(FakeRunner(slots=2), max_sessions=2, send_timeout_s=0.2, max_pending_seconds=100.0) as host:
        async with unharmed(host), talk(host.url, "/v1/decode", max_queue=1, close_timeout=0.1) as client:
            await client.send(np.zeros(50_000, np.uint16).tobytes())
            await host.emptied(down_to=1)


async def test_a_stuck_device_ends_sessions_with_an_error_and_makes_the_server_unready():
    runner = FakeRunner(slots=2)
    running, go_on = threading.Event(), threading.Event()
    step = runner.step

    def stand_still(*arguments):
        running.set()
        assert go_on.wait(DEADLINE_S)
        return step(*arguments)

    runner.step = stand_still
    with hosted(runner, max_sessions=2, slot_timeout_s=0.5, stuck_after_s=1.0) as host:
        async with talk(host.url, "/v1/encode") as client:
            await client.send(s16(speech(*LEVELS)))
            await asyncio.to_thread(running.wait, DEADLINE_S)
            async with connect(host.url + "/v1/encode") as late:
                failure = json.loads(await asyncio.wait_for(late.recv(), DEADLINE_S))
                assert failure["code"] == "device"
            while (await asyncio.to_thread(get, host.url + "/readyz"))[0] == 200:
                pass  # not stuck long enough yet
            status, body = await asyncio.to_thread(get, host.url + "/readyz")
            assert status == 503 and not body["ready"] and "busy" in body["reason"]
            assert (await refused(host.url + "/v1/encode")).status_code == 503
            assert (await client.fail()).code == "device", "whoever waits is told"
            go_on.set()


async def test_ended_sessions_leave_no_task(host):
    async def tasks() -> int:
        return len(asyncio.all_tasks())

    async def count() -> int:
        await host.emptied()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(tasks(), host.loop))

    before = await count()
    for number in range(12):
        async with talk(host.url, "/v1/roundtrip?stats=1") as client:
            await client.send(s16(speech(*LEVELS)))
            if number % 3 == 0:
                await client.finish()
            elif number % 3 == 1:
                await spoil(client, b"abc")
    assert await count() <= before + 1, "one more at most: a handshake whose socket is being closed"


def test_a_busy_port_gets_a_clear_error(host):
    port = int(host.url.rsplit(":", 1)[1])
    from neucodec_streaming.server.app import App
    from neucodec_streaming.server.settings.fields import Settings

    async def start() -> None:
        app = App(Settings(port=port))
        try:
            await app.start()
        finally:
            await app.stop()

    with pytest.raises(ConfigError, match=f"port {port} is in use.*--port"):
        asyncio.run(start())
