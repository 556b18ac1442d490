"""The Ray Serve application on three nodes: placement by free capacity, a dying node, refusals, scaling."""

import asyncio
import random
import signal
from collections import Counter

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from benchmarks.serve.cluster import served_cluster
from neucodec_streaming.server.http.pages import FOLDER, INDEX
from tests.deploy.speakers import PINNED, SETTINGS, Speaker
from tests.server.hosting import DEADLINE_S, hosted
from tests.server.test_resume import Caller

pytest.importorskip("ray.serve", reason="the extra `ray` is not installed")
pytestmark = [pytest.mark.servers, pytest.mark.slow]
SESSIONS = 12


@pytest.fixture(scope="module")
def cluster():
    with served_cluster(3, SETTINGS, room=6) as served:
        yield served


def replica_of(caller: Caller) -> str:
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


async def test_the_page_and_the_probes_are_served(cluster):
    async with httpx.AsyncClient(base_url=cluster.url.replace("ws", "http", 1)) as web:
        page = await web.get("/")
        assert page.content == (FOLDER / INDEX).read_bytes() and "content-security-policy" in page.headers
        assert (await web.get("/readyz")).json()["ready"] is True
        assert (await web.get("/v1/sing")).status_code == 404


async def test_a_reconnecting_client_reaches_the_replica_with_its_session(cluster):
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
        worker.send_signal(signal.SIGCONT)  # it detects the loss of its replica
    await cluster.until_replicas(3)


async def test_killing_a_node_in_mid_sentence_loses_and_duplicates_nothing(cluster):
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
