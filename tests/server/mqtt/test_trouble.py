"""Lossy links, a restarting broker, a dying bridge: losses are known to the last token."""

import asyncio
import threading
from contextlib import AsyncExitStack

import aiomqtt
import numpy as np
import pytest

from demos.mqtt.lossy_link import Damage, lossy
from neucodec_streaming.client.events import Done, Flushed, Tokens
from neucodec_streaming.client.mqtt.listener import listen
from neucodec_streaming.client.mqtt.session import open_at_broker
from neucodec_streaming.client.mqtt.stream import Missing
from neucodec_streaming.protocol.messages import End
from neucodec_streaming.protocol.mqtt.packets import FrameWriter
from neucodec_streaming.protocol.mqtt.topics import SessionStatus, encode_request, topic
from tests.server.mqtt.broker import broker, needs_mosquitto
from tests.server.mqtt.hosting import DEADLINE_S, bridged
from tests.server.mqtt.test_bridge import heard, tokens_in
from tests.streaming.engine.fake import FakeRunner, speech

pytestmark = needs_mosquitto
FRAMES = 240  # less than a client sends ahead of the output that it has received
RNG = np.random.default_rng(5)
SPOKEN = [int(level) for level in RNG.integers(1, 256, FRAMES)]


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory):
    with broker(tmp_path_factory.mktemp("mosquitto")) as running:
        yield running


async def speak(session, levels, frames_each: int = 5) -> None:
    """Leaves the stream open."""
    for start in range(0, len(levels), frames_each):
        await session.send(speech(*levels[start : start + frames_each]))


def by_position(events) -> dict[int, int]:
    """Maps positions to levels, without concealed ones."""
    made_up = {
        place
        for event in events
        if isinstance(event, Missing) and event.is_concealed
        for place in range(event.position - event.units, event.position)
    }
    found = {
        event.position + i: int(token) >> 8
        for event in events
        if isinstance(event, Tokens)
        for i, token in enumerate(event.tokens)
    }
    return {place: level for place, level in found.items() if place not in made_up}


def missing(events) -> int:
    return sum(event.units for event in events if isinstance(event, Missing))


async def test_qos_1_is_exact_over_a_lossy_link(mosquitto):
    damage = Damage(drop=0.1, repeat=0.1, reorder=0.1)
    async with (
        bridged(mosquitto.url, FakeRunner()) as host,
        lossy(mosquitto.port, damage) as link,
        open_at_broker(link.url, "exact") as session,
    ):
        await speak(session, SPOKEN)
        await session.end()
        events = await heard(session)
        assert host.app.sessions == 0
    assert by_position(events) == dict(enumerate(SPOKEN))
    assert events[-1] == Done(FRAMES * 320, FRAMES, 0)
    assert link.counts["dropped"] == 0


@pytest.mark.parametrize("redundancy", [0, 10])
async def test_qos_0_reports_exactly_the_units_that_a_listener_lost(mosquitto, redundancy):
    damage = Damage(drop=0.05, repeat=0.05, reorder=0.05)
    async with (
        bridged(mosquitto.url, FakeRunner()),
        open_at_broker(mosquitto.url, "heard", redundancy=redundancy) as session,
        lossy(mosquitto.port, damage, seed=3) as link,
        listen(link.url, "heard", qos=0) as listener,
    ):
        await speak(session, SPOKEN)
        await session.end()
        events, _ = await asyncio.gather(heard(listener), heard(session))
    found = by_position(events)
    assert all(SPOKEN[place] == level for place, level in found.items())
    lost = listener.loss
    assert missing(events) == lost.lost_units
    assert FRAMES - len(found) - min(found) == lost.lost_units  # losses before the first frame are unknown
    assert link.counts["dropped"] > 0 and lost.duplicate_frames > 0 and lost.reordered_frames + lost.late_frames > 0
    assert (lost.lost_units == 0 and lost.recovered_units > 0) if redundancy else lost.lost_units > 0


async def test_audio_that_did_not_reach_the_bridge_becomes_silence_and_is_counted(mosquitto):
    async with (
        bridged(mosquitto.url, FakeRunner()),
        lossy(mosquitto.port, Damage(drop=0.1), seed=1) as link,
        open_at_broker(link.url, "deaf", qos=0) as session,
        listen(mosquitto.url, "deaf") as listener,
    ):
        await speak(session, SPOKEN)
        await session.flush()
        link.damage = Damage()
        await heard(session, until=Flushed)
        await session.end()
        await heard(session)
        events = await heard(listener)
    found = by_position(events)
    assert sorted(found) == list(range(FRAMES))
    silent = [place for place, level in found.items() if level == 0]
    assert all(found[place] == SPOKEN[place] for place in range(FRAMES) if place not in silent)
    assert listener.status.loss["lost_units"] == len(silent) * 320 > 0


async def test_another_bridge_takes_over_within_two_seconds_and_reports_the_gap(mosquitto):
    loop = asyncio.get_running_loop()
    async with (
        bridged(mosquitto.url, FakeRunner()) as first,
        open_at_broker(mosquitto.url, "orphan") as session,
        listen(mosquitto.url, "orphan") as listener,
        bridged(mosquitto.url, FakeRunner()) as second,
    ):
        assert first.bridge.sessions == ["orphan"]
        await speak(session, SPOKEN[:100])
        await session.mark("half")
        died_s = loop.time()
        speaking = asyncio.create_task(speak(session, SPOKEN[100:200]))
        await first.die()
        while second.bridge.sessions != ["orphan"]:
            assert loop.time() - died_s < 2
            await asyncio.sleep(0.01)
        await speaking
        await speak(session, SPOKEN[200:])
        await session.end()
        events, own = await asyncio.gather(heard(listener), heard(session))
    found = by_position(events)
    assert all(SPOKEN[place] == level for place, level in found.items())
    assert missing(events) == FRAMES - len(found)
    assert set(range(100, FRAMES)) <= set(found)  # messages sent in the meantime waited for the new owner
    assert isinstance(own[-1], Done)


async def test_a_stopping_bridge_hands_its_sessions_over(mosquitto):
    async with bridged(mosquitto.url, FakeRunner()) as second, bridged(mosquitto.url, FakeRunner()) as first:
        await second.bridge.stop(5.0)
        async with open_at_broker(mosquitto.url, "moved") as session:
            assert first.bridge.sessions == ["moved"]
            second.bridge.start()
            await asyncio.wait_for(second.bridge.connected.wait(), DEADLINE_S)
            await speak(session, SPOKEN[:100])
            await first.bridge.stop(5.0)
            await speak(session, SPOKEN[100:])
            await session.end()
            events = await heard(session)
            found = by_position(events)
            assert all(SPOKEN[place] == level for place, level in found.items())
            assert missing(events) == FRAMES - len(found) < 100


async def test_a_session_whose_only_bridge_stops_waits_for_the_next_one(mosquitto):
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(bridged(mosquitto.url, FakeRunner()))
        session = await stack.enter_async_context(open_at_broker(mosquitto.url, "waiting"))
        await speak(session, SPOKEN[:100])
        await first.bridge.stop(5.0)
        speaking = asyncio.create_task(speak(session, SPOKEN[100:]))
        await stack.enter_async_context(bridged(mosquitto.url, FakeRunner()))
        await asyncio.wait_for(speaking, DEADLINE_S)
        await session.end()
        events = await heard(session)
    found = by_position(events)
    assert all(SPOKEN[place] == level for place, level in found.items())
    assert missing(events) == FRAMES - len(found) < 100


@pytest.mark.parametrize("persistence", [True, False])
async def test_a_restarted_broker_loses_only_its_queue_and_the_loss_is_reported(tmp_path, persistence):
    kept = f"persistence {str(persistence).lower()}\npersistence_location {tmp_path}/\n"
    with broker(tmp_path, f"allow_anonymous true\n{kept}user root\n") as restarting:
        async with (
            bridged(restarting.url, FakeRunner()) as host,
            open_at_broker(restarting.url, "again") as session,
            listen(restarting.url, "again") as listener,
        ):
            await speak(session, SPOKEN[:200])
            restarting.stop()
            speaking = asyncio.create_task(speak(session, SPOKEN[200:]))
            restarting.start()
            await asyncio.wait_for(speaking, DEADLINE_S)
            await session.end()
            events, own = await asyncio.gather(heard(listener), heard(session))
            assert host.app.sessions == 0
    found = by_position(events)
    assert missing(events) == FRAMES - len(found)
    assert isinstance(own[-1], Done)
    heard_levels = {place: level for place, level in found.items() if level != SPOKEN[place]}
    assert set(heard_levels.values()) <= {0}  # lost audio is replaced by silence and reported in the status
    assert listener.status.loss["lost_units"] == 320 * len(heard_levels)
    assert listener.status.state == SessionStatus.CLOSED


async def test_one_bridge_serves_a_hundred_concurrent_sessions(mosquitto):
    async def one(number: int) -> int:
        async with open_at_broker(mosquitto.url, f"many-{number}") as session:
            await speak(session, SPOKEN[number : number + 50], 10)
            await session.end()
            events = await heard(session)
            assert by_position(events) == dict(enumerate(SPOKEN[number : number + 50]))
            return int(tokens_in(events).size)

    async with bridged(mosquitto.url, FakeRunner(slots=100, batch_sizes=(1, 4, 16, 64, 100)), max_sessions=100):
        counts = await asyncio.gather(*(one(number) for number in range(100)))
    assert counts == [50] * 100


class GatedRunner(FakeRunner):
    """Computes nothing until the gate is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def step(self, pool, slots, windows, size):
        assert self.gate.wait(DEADLINE_S)
        return super().step(pool, slots, windows, size)


async def test_frames_beyond_the_bridges_queue_are_dropped_and_reported(mosquitto):
    runner, sent = GatedRunner(), 1500
    try:
        async with (
            bridged(mosquitto.url, runner, max_read_ahead_bytes=256),
            open_at_broker(mosquitto.url, "flooded", kind="decode") as session,
            aiomqtt.Client("127.0.0.1", mosquitto.port) as flood,
        ):
            writer = FrameWriter(2, source=1)
            for _ in range(sent):
                await flood.publish(topic("flooded", "tokens"), writer.write(b"\1\0"), 1)
            runner.gate.set()
            await flood.publish(topic("flooded", "control"), encode_request(End(), sent), 1)
            status = await closed(session)
    finally:
        runner.gate.set()
    assert status.input == sent
    lost = status.loss["lost_units"]
    assert 0 < lost < sent
    assert status.loss["frames"] == sent - lost


async def closed(session):
    async with asyncio.timeout(DEADLINE_S):
        while session.status is None or session.status.state != SessionStatus.CLOSED:  # noqa: ASYNC110 (no event)
            await asyncio.sleep(0.01)
    return session.status
