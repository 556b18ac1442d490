"""The Ray Serve application on three nodes: sessions by free capacity, a node that dies, refusals, scaling."""

import asyncio
import random
import signal
from collections import Counter

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from benchmarks.serve.cluster import served_cluster
from neucodec_streaming.client import Audio, Resumed
from neucodec_streaming.client import connect as open_session
from tests.server.hosting import DEADLINE_S, GOLDEN, hosted
from tests.server.test_resume import Caller, uncut

pytest.importorskip("ray.serve", reason="the extra `ray` is not installed")
pytestmark = [pytest.mark.servers, pytest.mark.slow]
SESSIONS = 12
PINNED = {"profiles": {"default": (5, 5)}, "batch_sizes": (1,), "workers": 1, "max_sessions": 2}
SETTINGS = {
    "model": str(GOLDEN),
    "profiles": "default=5:5",
    "batch_sizes": "1",
    "workers": "1",
    "max_sessions": "6",
    "max_load": "1000000",
    "max_behind_s": "1000000",
    "drain_s": "60",
    "stuck_after_s": "2",
}
"""Pinned to one batch size, so that every replica computes the same bits; each holds six sessions."""
PACKETS, PACKET_BYTES = 100, 640


@pytest.fixture(scope="module")
def cluster():
    with served_cluster(3, SETTINGS, room=6) as served:
        yield served


def replica_of(caller: Caller) -> str:
    """The replica that a session is at, by its token."""
    return caller.session.ready.resume.token[:8]


async def test_sessions_are_spread_by_free_capacity_and_a_full_cluster_refuses_before_the_upgrade(cluster):
    callers = [Caller("/v1/encode") for _ in range(18)]
    for caller in callers[:SESSIONS]:
        await caller.call(cluster.url)
    spread = Counter(map(replica_of, callers[:SESSIONS]))
    assert sorted(spread.values()) == [4, 4, 4]
    for caller in callers[SESSIONS:]:
        await caller.call(cluster.url)
    with pytest.raises(InvalidStatus) as refused:
        await connect(cluster.url + "/v1/encode")
    response = refused.value.response
    assert response.status_code == 503 and response.headers["Retry-After"] == "1" and b'"full"' in response.body
    for caller in callers:
        await caller.finish()


async def test_a_client_that_comes_back_finds_the_replica_with_its_slot(cluster):
    for _ in range(4):
        caller = Caller("/v1/encode")
        first = await caller.call(cluster.url)
        await caller.say(random.Random(1).randbytes(6400))
        caller.lose()
        again = await caller.call(cluster.url)
        assert again.session == first.session and again.resumed == "exact"
        await caller.finish()


async def test_a_replica_whose_device_is_stuck_is_replaced(cluster):
    before = set(await asyncio.to_thread(cluster.replica_ids))
    worker = cluster.worker_processes()[0]
    worker.send_signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(DEADLINE_S * 3):
            while not set(await asyncio.to_thread(cluster.replica_ids)) - before:  # noqa: ASYNC110
                await asyncio.sleep(0.3)
    finally:
        worker.send_signal(signal.SIGCONT)  # it finds that its replica is gone
    await cluster.until_replicas(3)


class Speaker:
    """A session by the client that users have: what it says, and all that it hears."""

    def __init__(self, url: str, seed: int) -> None:
        self.url = url
        rng = random.Random(seed)
        self.packets = [rng.randbytes(PACKET_BYTES) for _ in range(PACKETS)]
        self.heard = b""
        self.resumed: list[str] = []
        self.half_way = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.replica = ""

    async def run(self) -> None:
        async with open_session(self.url, kind="roundtrip", raw=True) as session:
            self.replica = session.ready.resume.token[:8]
            listening = asyncio.create_task(self.listen(session))
            for number, packet in enumerate(self.packets):
                if number == PACKETS // 2:
                    self.half_way.set()
                    await self.goes_on.wait()
                await session.send_bytes(packet)
                await asyncio.sleep(0.02)
            await session.end()
            await listening

    async def listen(self, session) -> None:
        async for event in session:
            if isinstance(event, Audio):
                self.heard += event.data
            elif isinstance(event, Resumed):
                assert event.gap == 0
                self.resumed.append(event.how)

    async def is_exact(self, url: str) -> bool:
        """Whether it heard what a server of its own says."""
        return self.heard == await uncut(url, "/v1/roundtrip", self.packets)


async def test_a_node_killed_in_mid_sentence_loses_and_doubles_nothing(cluster):
    speakers = [Speaker(cluster.url, seed) for seed in range(SESSIONS)]
    tasks = []
    for speaker in speakers:
        tasks.append(asyncio.create_task(speaker.run()))
        await speaker.half_way.wait()
    await asyncio.to_thread(cluster.cluster.remove_node, cluster.nodes.pop(), False)
    for speaker in speakers:
        speaker.goes_on.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 120)
    assert sorted(speaker.resumed for speaker in speakers) == [[]] * 8 + [["exact"]] * 4
    with hosted(**PINNED) as alone:
        assert all([await speaker.is_exact(alone.url) for speaker in speakers])


async def test_it_scales_up_under_load_and_down_after_it_without_a_lost_sample():
    scaling = {"min_replicas": 1, "max_replicas": 2, "upscale_delay_s": 1, "downscale_delay_s": 3}
    with served_cluster(2, SETTINGS, room=2, **scaling) as cluster, hosted(**PINNED) as alone:
        await cluster.until_replicas(1)
        speakers = [Speaker(cluster.url, seed) for seed in range(4)]
        tasks = [asyncio.create_task(speaker.run()) for speaker in speakers]
        await cluster.until_replicas(2)
        late = Speaker(cluster.url, 99)
        tasks.append(asyncio.create_task(late.run()))
        await late.half_way.wait()
        assert late.replica not in {speaker.replica for speaker in speakers}
        for speaker in speakers[1:]:
            speaker.goes_on.set()
        await asyncio.wait_for(asyncio.gather(*tasks[1:4]), DEADLINE_S)
        for speaker in (late, speakers[0]):  # one of them is at the replica that goes
            assert not speaker.resumed
        await cluster.until_replicas(1)
        for speaker in (late, speakers[0]):
            speaker.goes_on.set()
        await asyncio.wait_for(asyncio.gather(*tasks), DEADLINE_S)
        assert all([await speaker.is_exact(alone.url) for speaker in (late, *speakers)])
        assert not any(speaker.resumed for speaker in (late, *speakers)), "a replica that drains lets sessions end"
