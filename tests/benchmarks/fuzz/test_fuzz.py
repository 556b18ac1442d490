"""The fuzzer reaches its targets, counts accepted frames, and distinguishes broken servers from healthy ones."""

import asyncio
import random
from collections import Counter

import pytest

from benchmarks.common.raw_connection import request
from benchmarks.fuzz.__main__ import Fuzzer, FuzzSpeaker, growth_mb, judged
from benchmarks.fuzz.frames import FATAL, HARMLESS, Script, script
from tests.server.hosting import DEADLINE_S, Host, hosted, s16
from tests.streaming.engine.fake import FakeRunner, speech

ASKED = (request("/v1/encode", "127.0.0.1"),)


@pytest.fixture
def host():
    with hosted(FakeRunner(slots=40), max_sessions=40, max_attempts_per_minute=None, close_timeout_s=1.0) as made:
        yield made


async def attacked(host: Host, *scripts: Script) -> Fuzzer:
    fuzzer = Fuzzer(host.url, random.Random(0))
    for one in scripts:
        await asyncio.wait_for(fuzzer.connection(one), DEADLINE_S)
    return fuzzer


async def test_harmless_frames_leave_a_connection_open_and_are_all_counted(host):
    rng = random.Random(1)
    scripts = [
        Script(ASKED, tuple(make(rng) for _ in range(40)), end=end) for make in HARMLESS for end in ("abort", "close")
    ]
    fuzzer = await attacked(host, *scripts)
    assert fuzzer.outcomes == {"cut off": len(HARMLESS), "1000": len(HARMLESS)}
    assert (fuzzer.requests, fuzzer.frames) == (len(scripts), 40 * len(scripts))


async def test_invalid_frames_end_the_connection_with_a_status_other_than_internal_error(host):
    rng = random.Random(2)
    fuzzer = await attacked(host, *(Script(ASKED, (), make(rng)) for make in FATAL for _ in range(4)))
    assert fuzzer.frames == 4 * len(FATAL)
    assert {"1002", "1007", "1009"} <= set(fuzzer.outcomes) <= {"1000", "1002", "1005", "1007", "1009", "ended"}


async def test_an_unparsable_request_is_a_bad_request(host):
    fuzzer = await attacked(
        host, *(Script((request(path, "there"),)) for path in ("//[", "/v1/encode?[", "//[/v1/encode"))
    )
    assert fuzzer.outcomes == {"HTTP 400": 3}


@pytest.mark.slow
async def test_thousands_of_frames_affect_no_other_session_and_leak_nothing(host):
    tasks = len(asyncio.all_tasks(host.loop))
    speaker = FuzzSpeaker(host.url, s16(speech(*range(1, 30))))
    fuzzer = Fuzzer(host.url, random.Random(3))
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        speaking = group.create_task(speaker.speak())
        await speaker.spoken.wait()
        await fuzzer.run(3000, 16, lambda: None)
        speaker.stopping = True
        await speaking
    assert fuzzer.count >= 3000 and not speaker.changed and len(speaker.outputs) > 1
    assert not {"no answer", "1011", "HTTP 500"} & set(fuzzer.outcomes)
    assert len(asyncio.all_tasks(host.loop)) == tasks


def test_scripts_are_reproducible_by_seed_and_some_resume_sessions():
    def some(seed: int) -> list[Script]:
        rng = random.Random(seed)
        return [script(rng, ["/v1/encode?resume=token."]) for _ in range(200)]

    assert some(5) != some(6)
    assert any(b"resume=token." in b"".join(one.request) for one in some(5))
    assert Counter(one.end for one in some(5)).keys() == {"abort", "close", "half"}


def test_growth_is_the_slope_after_the_first_sample():
    samples = [{"count": 100_000 * n, "memory_mb": mb} for n, mb in enumerate((500, 700, 702, 704))]
    assert growth_mb(samples) == pytest.approx(2.0) and growth_mb(samples[:2]) is None


def test_every_fault_is_reported():
    fine = {
        "outcomes": {"1002": 5, "HTTP 400": 1},
        "tracebacks": 0,
        "sentences_changed": 0,
        "growth_mb_per_100000": 0.9,
        "server": {"is_back": True},
    }
    assert judged(fine) == []
    bad = {
        "outcomes": {"1011": 1, "no answer": 1},
        "tracebacks": 1,
        "sentences_changed": 1,
        "growth_mb_per_100000": 1.1,
    }
    assert len(judged(fine | bad | {"server": {"is_back": False}})) == 6
