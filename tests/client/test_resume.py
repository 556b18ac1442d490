"""A lost connection is restored; the user sees events, positions and errors, and nothing else."""

import asyncio
import itertools

import numpy as np
import pytest
import uvloop

from neucodec_streaming.client.connection import LOST_SECONDS, MAX_STALE_SECONDS, connect
from neucodec_streaming.client.dial import Deadlines
from neucodec_streaming.client.errors import Disconnected
from neucodec_streaming.client.events import Audio, Cleared, Done, Flushed, Marked, Resumed, Tokens
from neucodec_streaming.protocol.client_session import REPLAY_SECONDS
from tests.client.fake_server import Fault, fake_server
from tests.client.test_connection import collect, speech

BRIEF = Deadlines(resume_s=0.5, close_s=0.2)


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Makes reconnecting take milliseconds."""
    monkeypatch.setattr("neucodec_streaming.client.connection.FIRST_PAUSE_S", 0.005)
    monkeypatch.setattr("neucodec_streaming.client.connection.MAX_PAUSE_S", 0.05)


def tokens_of(events) -> np.ndarray:
    return np.concatenate([event.tokens for event in events if isinstance(event, Tokens)])


async def until(connection, kind):
    seen = []
    async with asyncio.timeout(5):
        while not (seen and isinstance(seen[-1], kind)):
            seen.append(await anext(connection))
    return seen


async def test_ten_losses_change_nothing_and_give_ten_events():
    audio = speech(100)
    async with fake_server(resume=True) as server, connect(server.url, kind="encode") as connection:
        seen = []
        for part in range(10):
            await connection.send(audio[part * 3200 : (part + 1) * 3200])
            server.drop()
            seen += await until(connection, Resumed)
        await connection.end()
        seen += await collect(connection)
    assert tokens_of(seen).tolist() == list(range(100))
    assert [event.how for event in seen if isinstance(event, Resumed)] == ["exact"] * 10
    assert {event.gap for event in seen if isinstance(event, Resumed)} == {0}
    positions = [(event.position, event.tokens.size) for event in seen if isinstance(event, Tokens)]
    assert all(at + size == after for (at, size), (after, _) in itertools.pairwise(positions))


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_sessions_resume_on_either_event_loop_and_leave_no_task(new_loop):
    async def scene():
        async with fake_server(resume=True) as server, connect(server.url, kind="roundtrip") as connection:
            await connection.send(speech(8))
            server.drop()
            seen = await until(connection, Resumed)
            await connection.end()
            seen += await collect(connection)
            server.drop()
        await asyncio.sleep(0)
        return sum(event.samples.size for event in seen if isinstance(event, Audio)), asyncio.all_tasks()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        samples, tasks = runner.run(scene())
    assert samples == 8 * 480
    assert len(tasks) == 1


async def test_answers_lost_with_the_connection_arrive_exactly_once():
    async with fake_server(resume=True) as server, connect(server.url, kind="encode") as connection:
        await connection.send(speech(7))
        await connection.mark("m")
        await connection.flush()
        await until(connection, Tokens)
        server.drop()
        seen = await until(connection, Flushed)
        await connection.end()
        seen += await collect(connection)
    assert [type(event) for event in seen if not isinstance(event, Tokens | Resumed)] == [Marked, Flushed, Done]
    assert [event.how for event in seen if isinstance(event, Resumed)] == ["exact"]


async def test_input_sent_while_the_connection_is_lost_arrives_in_order():
    async with fake_server(resume=True) as server, connect(server.url, kind="encode") as connection:
        await connection.send(speech(5))
        await until(connection, Tokens)
        server.drop()
        for first in range(5, 105, 5):
            await connection.send(speech(105)[first * 320 : (first + 5) * 320])
        await connection.mark(1)
        await connection.end()
        seen = await collect(connection)
    assert tokens_of(seen).tolist() == list(range(5, 105))
    assert isinstance(seen[-2], Marked) and isinstance(seen[-1], Done)
    assert seen[-1].output == 105


async def test_a_clear_during_a_lost_connection_is_answered_and_drops_old_output():
    async with fake_server(resume=True) as server, connect(server.url, kind="encode") as connection:
        await connection.send(speech(12))
        await until(connection, Tokens)
        server.drop()
        await connection.clear()
        assert [type(event) for event in await until(connection, Cleared)] == [Resumed, Cleared]
        await connection.send(speech(5))
        await connection.end()
        seen = await collect(connection)
    assert tokens_of(seen).tolist() == [0, 1, 2, 3, 4]


async def test_a_restarted_server_recomputes_the_utterance_and_reports_it():
    async with fake_server(resume=True) as server, connect(server.url, kind="encode") as connection:
        await connection.send(speech(5))
        await connection.flush()
        await until(connection, Flushed)
        await connection.send(speech(12))
        await until(connection, Tokens)
        server.forget()
        await server.close_all(1012)
        (resumed,) = await until(connection, Resumed)
        assert (resumed.how, resumed.gap, resumed.position) == ("approximate", 0, 15)
        await connection.end()
        seen = await collect(connection)
    assert tokens_of(seen).tolist() == [10, 11]
    assert seen[-1].output == 17


async def test_a_gap_is_reported():
    longer = int(REPLAY_SECONDS * 50) + 100
    async with fake_server(Fault.MUTE, resume=True) as server, connect(server.url, kind="encode") as connection:
        await connection.send(speech(longer))
        server.fault = Fault.NONE
        server.forget()
        server.drop()
        (resumed,) = await until(connection, Resumed)
        assert (resumed.how, resumed.gap, resumed.position) == ("approximate", 100, 100)
        await connection.end()
        seen = await collect(connection)
    assert tokens_of(seen).tolist() == list(range(100, longer))
    assert seen[0].position == 100


async def test_a_server_without_resume_starts_a_new_session_and_reports_it():
    async with fake_server(resume=True) as server, connect(server.url, kind="encode") as connection:
        await connection.send(speech(7))
        await connection.flush()
        await until(connection, Flushed)
        await connection.send(speech(7))
        await until(connection, Tokens)
        server.knows_resume = False
        server.drop()
        (resumed,) = await until(connection, Resumed)
        assert (resumed.how, resumed.position) == ("new", 0)
        await connection.send(speech(3))
        await connection.end()
        seen = await collect(connection)
    assert tokens_of(seen).tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1, 2]
    assert seen[-1].output == 10


@pytest.mark.parametrize("code", [1001, 1012])
async def test_a_server_that_goes_away_counts_as_a_loss(code):
    async with fake_server(resume=True) as server, connect(server.url, kind="encode") as connection:
        await connection.send(speech(5))
        await until(connection, Tokens)
        await server.close_all(code)
        assert [event.how for event in await until(connection, Resumed)] == ["exact"]


@pytest.mark.parametrize("code", [1000, 1008, 1011, 1013])
async def test_a_server_that_ends_the_session_is_not_a_loss(code):
    async with fake_server(resume=True) as server, connect(server.url, kind="encode") as connection:
        await server.close_all(code)
        with pytest.raises(Disconnected, match=str(code)):
            await anext(connection)
        with pytest.raises(Disconnected):
            await connection.send(speech(1))


async def test_without_resume_a_loss_ends_the_session():
    async with (
        fake_server(resume=True) as server,
        connect(server.url, kind="encode", resume=False) as connection,
    ):
        server.drop()
        with pytest.raises(Disconnected, match="without a closing handshake"):
            await anext(connection)


async def test_an_unreachable_server_raises_disconnected_for_reader_and_writer_in_time():
    async with (
        fake_server(resume=True) as server,
        connect(server.url, kind="encode", deadlines=BRIEF) as connection,
    ):
        server.fault = Fault.PROXY
        server.drop()
        with pytest.raises(Disconnected, match=r"could not be restored within 0\.5 s: .*HTTP 502"):
            await anext(connection)
        with pytest.raises(Disconnected, match="could not be restored"):
            await connection.send(speech(1))


@pytest.mark.parametrize(("fault", "code"), [(Fault.PROXY_LOGIN, "unauthorized"), (Fault.UNKNOWN_PATH, "bad_path")])
async def test_a_permanent_refusal_ends_the_session_at_once(fault, code):
    async with fake_server(resume=True) as server, connect(server.url, kind="encode") as connection:
        server.fault = fault
        server.drop()
        attempts = len(server.requests)
        with pytest.raises(Exception) as ended:
            await anext(connection)
        assert ended.value.code == code
        assert len(server.requests) == attempts + 1


async def test_send_waits_once_the_limit_without_a_connection_is_reached():
    async with fake_server(resume=True) as server, connect(server.url, kind="encode") as connection:
        server.fault = Fault.PROXY
        server.drop()
        await connection.send(speech(int(LOST_SECONDS * 50) - 100))
        more = asyncio.create_task(connection.send(speech(200)))
        done, _ = await asyncio.wait({more}, timeout=0.05)
        assert not done
        server.fault = Fault.NONE
        async with asyncio.timeout(5):
            await more
        await connection.end()
        assert (await collect(connection))[-1].output == LOST_SECONDS * 50 + 100


async def test_retry_after_is_honoured(monkeypatch):
    pauses, sleep = [], asyncio.sleep

    async def noted(seconds):
        if seconds > 3:
            return await sleep(seconds)
        pauses.append(seconds)
        if seconds == 3:
            server.fault = Fault.NONE

    async with fake_server(resume=True) as server, connect(server.url, kind="encode") as connection:
        server.fault = Fault.FULL
        monkeypatch.setattr("asyncio.sleep", noted)
        server.drop()
        await until(connection, Resumed)
    assert pauses[-1] == 3 and max(pauses[:-1]) < 1


async def test_cancelling_while_the_connection_is_lost_leaves_nothing_behind():
    before = asyncio.all_tasks()
    async with fake_server(resume=True) as server:

        async def session():
            async with connect(server.url, kind="encode") as connection:
                server.fault = Fault.PROXY
                server.drop()
                await anext(connection)

        task = asyncio.create_task(session())
        await server.asked(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert server.open_sessions == 0
    assert asyncio.all_tasks() == before


async def test_a_loss_is_repaired_without_a_reader():
    async with fake_server(resume=True) as server, connect(server.url, kind="encode") as connection:
        await connection.send(speech(5))
        server.drop()
        await server.asked(2)
        server.drop()
        await server.asked(3)
        await connection.end()
        seen = await collect(connection)
    assert tokens_of(seen).tolist() == [0, 1, 2, 3, 4]
    assert sum(isinstance(event, Resumed) for event in seen) in (1, 2)


async def lose_for(server, connection, audio) -> None:
    server.fault = Fault.PROXY
    server.drop()
    await server.asked(len(server.requests) + 1)
    await connection.send(audio)
    server.fault = Fault.NONE


async def test_a_live_session_drops_the_input_that_has_become_stale_and_leaves_no_hole():
    async with fake_server(resume=True) as server, connect(server.url, kind="encode", live=True) as connection:
        await connection.send(speech(5))
        await until(connection, Tokens)
        await lose_for(server, connection, speech(50 * 50))
        (resumed,) = await until(connection, Resumed)
        assert (resumed.how, resumed.gap, resumed.dropped_seconds) == ("exact", 0, 50 - MAX_STALE_SECONDS)
        assert connection.input_position == 30 * 320
        await connection.send(speech(1))
        await connection.end()
        *seen, done = await collect(connection)
    assert tokens_of(seen).tolist() == [*range(2475, 2500), 0]
    assert seen[0].position == 5
    assert (done.input, done.output) == (31 * 320, 31)


async def test_a_live_session_drops_replayed_output_that_is_stale_and_counts_it():
    async with (
        fake_server(Fault.MUTE, resume=True) as server,
        connect(server.url, kind="encode", live=True) as connection,
    ):
        await connection.send(speech(20))
        await server.heard.wait()
        await lose_for(server, connection, speech(100))
        (resumed,) = await until(connection, Resumed)
        assert (resumed.how, resumed.gap, resumed.position) == ("exact", 20, 20)
        await connection.end()
        *seen, done = await collect(connection)
    assert seen[0].position == 20
    assert tokens_of(seen).tolist() == list(range(75, 100))
    assert (done.input, done.output) == (45 * 320, 45)


async def test_a_live_session_drops_nothing_after_a_short_loss():
    async with fake_server(resume=True) as server, connect(server.url, kind="encode", live=True) as connection:
        await connection.send(speech(5))
        await until(connection, Tokens)
        await lose_for(server, connection, speech(25))
        (resumed,) = await until(connection, Resumed)
        assert (resumed.how, resumed.gap, resumed.dropped_seconds) == ("exact", 0, 0)
        await connection.end()
        assert (await collect(connection))[-1].input == 30 * 320


async def test_a_live_session_without_its_slot_restarts_with_fresh_input():
    async with fake_server(resume=True) as server, connect(server.url, kind="encode", live=True) as connection:
        await connection.send(speech(7))
        await until(connection, Tokens)
        server.forget()
        await lose_for(server, connection, speech(100))
        (resumed,) = await until(connection, Resumed)
        assert (resumed.how, resumed.gap, resumed.position) == ("new", 0, 0)
        assert connection.input_position == 25 * 320
        await connection.end()
        *seen, done = await collect(connection)
    assert tokens_of(seen).tolist() == list(range(75, 100))
    assert (done.input, done.output) == (25 * 320, 25)


async def test_a_live_session_without_its_slot_repeats_nothing():
    async with fake_server(resume=True) as server, connect(server.url, kind="encode", live=True) as connection:
        await connection.send(speech(7))
        before = tokens_of(await until(connection, Tokens)).tolist()
        server.forget()
        await lose_for(server, connection, speech(17)[7 * 320 :])
        (resumed,) = await until(connection, Resumed)
        assert (resumed.how, resumed.dropped_seconds) == ("new", 0)
        await connection.end()
        *seen, _ = await collect(connection)
    assert before + tokens_of(seen).tolist() == list(range(17))


async def test_a_mark_sent_during_a_lost_connection_is_not_cleared():
    async with fake_server(resume=True) as server, connect(server.url, kind="encode") as connection:
        await connection.send(speech(5))
        await until(connection, Tokens)
        await lose_for(server, connection, speech(5))
        await connection.mark("m")
        assert (await until(connection, Marked))[-1] == Marked("m", cleared=False)


async def test_unreceived_input_before_a_clear_is_not_sent_again():
    async with fake_server(resume=True) as server, connect(server.url, kind="encode") as connection:
        await connection.send(speech(5))
        await until(connection, Tokens)
        await lose_for(server, connection, speech(500))
        await connection.clear()
        (resumed, *_, cleared) = await until(connection, Cleared)
        assert (resumed.how, cleared.input, connection.input_position) == ("exact", 5 * 320, 5 * 320)
        await connection.send(speech(5))
        await connection.end()
        *seen, done = await collect(connection)
    assert tokens_of(seen).tolist() == [0, 1, 2, 3, 4]
    assert done.input == 10 * 320
