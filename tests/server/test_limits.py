"""Limits on the duration, silence and closing of a session, and the end of sessions when a server or device stops."""

import asyncio
import threading

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from neucodec_streaming.protocol.messages import Done, Flush, Flushed
from tests.server.hosting import DEADLINE_S, Host, hosted, s16, talk
from tests.server.test_app import get
from tests.streaming.engine.fake import FakeRunner, speech

PATH = "/v1/encode"


def in_loop(host: Host, coroutine) -> asyncio.Future:
    return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, host.loop))


@pytest.mark.parametrize(
    ("setting", "speaks", "named"),
    [
        ("first_message_timeout_s", False, "no message within"),
        ("idle_timeout_s", True, "no traffic for"),
        ("max_session_s", True, "the session has reached its time limit"),
    ],
)
async def test_a_session_ends_with_time_limit_at_its_maximum_duration(setting, speaks, named):
    with hosted(FakeRunner(), **{setting: 0.2}) as host:
        async with talk(host.url, PATH) as client:
            if speaks:
                await client.send(s16(speech(1, 2, 3)))
            failure = await client.fail()
            assert failure.code == "time_limit" and named in failure.message
            assert client.socket.close_code == 1008
        await host.emptied()


async def test_traffic_in_either_direction_prevents_the_idle_timeout():
    with hosted(FakeRunner(), idle_timeout_s=0.3, first_message_timeout_s=0.3) as host:
        async with talk(host.url, PATH) as client:
            for _ in range(6):
                await client.send(Flush())
                await client.hear_until(Flushed)
                await asyncio.sleep(0.1)
            await client.finish()


async def test_a_draining_server_lets_sessions_end_and_refuses_new_ones():
    with hosted(FakeRunner(), drain_s=DEADLINE_S) as host:
        async with talk(host.url, PATH) as client:
            draining = in_loop(host, host.app.drain())
            while (await asyncio.to_thread(get, host.url + "/readyz"))[0] == 200:
                pass
            status, body = await asyncio.to_thread(get, host.url + "/readyz")
            assert status == 503 and body["reason"] == "the server is shutting down"
            with pytest.raises(InvalidStatus) as caught:
                await connect(host.url + PATH)
            assert caught.value.response.status_code == 503 and "Retry-After" in caught.value.response.headers
            await client.send(s16(speech(*range(12))))
            assert isinstance(await client.finish(), Done)
            await asyncio.wait_for(draining, DEADLINE_S)


async def test_sessions_open_after_the_drain_are_closed_with_service_restart():
    with hosted(FakeRunner(), drain_s=0.1) as host:
        async with talk(host.url, PATH) as client:
            await in_loop(host, host.app.drain())
            stopping = in_loop(host, host.app.stop())
            await asyncio.wait_for(client.socket.wait_closed(), DEADLINE_S)
            assert client.socket.close_code == 1012 and "elsewhere" in client.socket.close_reason
            await asyncio.wait_for(stopping, DEADLINE_S)


async def test_a_stuck_device_ends_its_sessions_with_an_error():
    runner, go_on = FakeRunner(), threading.Event()
    step = runner.step

    def stuck(*arguments):
        go_on.wait(DEADLINE_S)
        return step(*arguments)

    runner.step = stuck
    with hosted(runner, stuck_after_s=0.2) as host:
        try:
            async with talk(host.url, PATH) as speaking, talk(host.url, PATH) as silent:
                await speaking.send(s16(speech(*range(24))))
                for client in (speaking, silent):
                    failure = await client.fail()
                    assert failure.code == "device" and "busy with a single step" in failure.message
                assert (await asyncio.to_thread(get, host.url + "/readyz"))[0] == 503
        finally:
            go_on.set()
        await host.emptied()
