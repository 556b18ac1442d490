"""A quiet session gives up its slots and stays open; its next input wakes it with its state unchanged."""

import asyncio
import time

import numpy as np
import pytest

from neucodec_streaming.protocol.messages import Clear, Cleared, Done, Failure, Flush, Flushed, Mark, Marked
from tests.server.hosting import Host, hosted, s16, talk
from tests.server.sessions.test_barge_in import SlowRunner
from tests.server.test_resume import Caller
from tests.streaming.engine.fake import FakeRunner, speech, tokens_of

QUIET = {"park_after_s": 0.05}
LEVELS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3]


async def parked(host: Host, count: int = 1) -> None:
    end_s = time.monotonic() + 10
    while len(host.app.registry._parked) != count or host.app.sessions:
        assert time.monotonic() < end_s, "nothing is parked"
        await asyncio.sleep(0.01)


async def test_a_session_without_input_is_parked_and_wakes_with_its_first_payload() -> None:
    with hosted(FakeRunner(), **QUIET) as host:
        async with talk(host.url, "/v1/encode") as client:
            await parked(host)
            await client.send(s16(speech(*LEVELS)))
            assert await client.finish() == Done(len(LEVELS) * 320, len(LEVELS), 0)
            assert client.output == tokens_of(LEVELS).tobytes()


async def test_an_unfinished_utterance_continues_from_its_snapshot() -> None:
    with hosted(FakeRunner(), **QUIET) as host:
        async with talk(host.url, "/v1/roundtrip?input_rate=8000&output_format=f32le") as client:
            audio = s16(np.repeat(np.arange(24, dtype=np.float32) / 1024, 160))
            for start in range(0, len(audio), 1280):
                await client.send(audio[start : start + 1280])
                await parked(host)
            await client.finish()
        async with talk(host.url, "/v1/roundtrip?input_rate=8000&output_format=f32le") as awake:
            await awake.send(audio)
            await awake.finish()
        assert client.output == awake.output


async def test_requests_of_a_parked_session_are_answered() -> None:
    with hosted(FakeRunner(), **QUIET) as host:
        async with talk(host.url, "/v1/encode") as client:
            await client.send(s16(speech(1, 2, 3)))
            await parked(host)
            await client.send(Mark("now"), Clear())
            await client.hear_until(Cleared)
            assert client.messages == [Marked("now", cleared=True), Cleared(960, 0)]
            await client.send(s16(speech(*LEVELS)), Flush())
            await client.hear_until(Flushed)
            assert client.output == tokens_of(LEVELS).tobytes()
            await parked(host)
            await client.finish()


async def test_the_slot_of_a_parked_session_goes_to_others_and_it_waits_for_another() -> None:
    with hosted(FakeRunner(slots=1), max_sessions=1, park_after_s=0.05, wake_timeout_s=10.0) as host:
        async with talk(host.url, "/v1/encode") as quiet:
            await parked(host)
            async with talk(host.url, "/v1/encode") as other:
                await other.send(s16(speech(*range(5))))
                await quiet.send(s16(speech(*LEVELS)), Flush())
                await other.finish()
            await quiet.hear_until(Flushed)
            assert quiet.output == tokens_of(LEVELS).tobytes()


async def test_a_waking_session_that_gets_no_slot_in_time_ends_with_full() -> None:
    with hosted(FakeRunner(slots=1), max_sessions=1, park_after_s=0.05, wake_timeout_s=0.1) as host:
        async with talk(host.url, "/v1/encode") as quiet:
            await parked(host)
            async with talk(host.url, "/v1/encode") as busy:
                speaking = asyncio.create_task(speak(busy))
                await quiet.send(s16(speech(*LEVELS)))
                failure = await quiet.fail()
                speaking.cancel()
                assert isinstance(failure, Failure) and failure.code == "full"


async def speak(client) -> None:
    while True:
        await client.send(s16(speech(1)))
        await asyncio.sleep(0.01)


async def test_parked_memory_is_bounded_by_evicting_the_oldest_session() -> None:
    with hosted(FakeRunner(), max_parked_bytes=40_000, resume_s=30.0, **QUIET) as host:
        async with talk(host.url, "/v1/encode") as first:
            await first.send(s16(speech(1, 2, 3)))
            await parked(host)
            async with talk(host.url, "/v1/encode") as second, talk(host.url, "/v1/encode") as third:
                await asyncio.wait_for(first.socket.wait_closed(), 10)
                assert first.socket.close_code == 1012 and "resume" in first.socket.close_reason
                assert second.socket.close_code is None is third.socket.close_code
            token = first.session.ready.resume.token
            async with talk(host.url, f"/v1/encode?resume={token}&received=0&utterance=0,0") as resumed:
                assert resumed.session.ready.resumed == "approximate", "replayed: nothing is left of the session"


@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_parked_session_can_be_lost_and_resumed(is_lost: bool) -> None:
    with hosted(FakeRunner(), resume_s=30.0, **QUIET) as host:
        caller = Caller("/v1/encode")
        await caller.call(host.url)
        await caller.say(s16(speech(*LEVELS[:7])))
        if not is_lost:
            await parked(host)
        caller.lose()
        if is_lost:
            await parked(host)
        assert (await caller.call(host.url)).resumed == "exact"
        await caller.say(s16(speech(*LEVELS[7:])))
        await caller.finish()
        assert caller.heard == tokens_of(LEVELS).tobytes()


async def test_a_session_with_output_pending_is_never_parked() -> None:
    runner = SlowRunner()
    with hosted(runner, **QUIET) as host:
        async with talk(host.url, "/v1/encode") as client:
            await client.send(s16(speech(*LEVELS)), Flush())
            await asyncio.sleep(0.3)
            assert host.app.sessions == 1
            runner.go_on.set()
            await client.hear_until(Flushed)
            assert client.output == tokens_of(LEVELS).tobytes()
