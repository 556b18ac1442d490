"""The Ray Serve application scales by its sessions, and loses none of them."""

import asyncio

import pytest

from benchmarks.serve.cluster import served_cluster
from tests.deploy.speakers import PINNED, SETTINGS, Speaker
from tests.server.hosting import DEADLINE_S, hosted

pytest.importorskip("ray.serve", reason="the extra `ray` is not installed")
pytestmark = [pytest.mark.servers, pytest.mark.slow]


async def test_ray_serve_scales_up_and_down_with_load_without_losing_a_sample():
    scaling = {"min_replicas": 1, "max_replicas": 2, "upscale_delay_s": 1, "downscale_delay_s": 3}
    with served_cluster(2, SETTINGS, room=4, **scaling) as cluster, hosted(**PINNED) as alone:
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
