"""A Ray cluster whose nodes are processes of this machine, with the codec served on it. Needs the extra `ray`."""

import asyncio
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psutil

STORE_BYTES = 100_000_000
START_S = 180.0
WORKERS = "neucodec_streaming.server.workers"


class ServedCluster:
    """`url` is that of the head's proxy, `nodes` are those that run replicas."""

    def __init__(self, cluster: Any, url: str, nodes: list[Any]) -> None:
        self.cluster, self.url, self.nodes = cluster, url, nodes

    def replicas(self) -> int:
        """Counts those that can be routed to."""
        from ray import serve

        deployments = serve.status().applications["codec"].deployments.values()
        return sum(count for one in deployments for state, count in one.replica_states.items() if state == "RUNNING")

    def replica_ids(self) -> list[str]:
        """Returns the ids that resume tokens contain."""
        from ray.util import list_named_actors

        names = [actor["name"] for actor in list_named_actors(all_namespaces=True)]
        return [name.rsplit("#", 1)[1] for name in names if "CodecReplica#" in name]

    def worker_processes(self) -> list[psutil.Process]:
        mine = psutil.Process().children(recursive=True)
        return [one for one in mine if WORKERS in one.cmdline()]

    def processes(self, actor: str) -> list[psutil.Process]:
        """Returns Ray's actors of this name, such as the head's proxy."""
        mine = psutil.Process().children(recursive=True)
        return [one for one in mine if one.cmdline()[:1] and one.cmdline()[0].startswith(f"ray::{actor}")]

    async def until_replicas(self, count: int) -> None:
        """Waits for exactly `count`."""
        async with asyncio.timeout(START_S):
            while await asyncio.to_thread(self.replicas) != count:  # noqa: ASYNC110 (Serve has no event for it)
                await asyncio.sleep(0.3)


@contextmanager
def served_cluster(nodes: int, settings: Mapping[str, str], room: int, **arguments: Any) -> Iterator[ServedCluster]:
    """Starts a head without processors, nodes with one each, and a replica on every node, unless `arguments` differ."""
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster

    from deploy.kubernetes.generate import ray_environment
    from deploy.ray_serve import Arguments, build

    os.environ.update(ray_environment())  # the cluster's processes inherit it
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    head = {"num_cpus": 0, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        workers = [cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES) for _ in range(nodes)]
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        given = {"cpus": 1, "min_replicas": nodes, "max_replicas": nodes} | arguments
        application = build(Arguments(settings=dict(settings), room=room, **given))
        serve.run(application, name="codec", route_prefix="/", blocking=False)
        yield ServedCluster(cluster, f"ws://127.0.0.1:{port}", workers)
    finally:
        serve.shutdown()
        ray.shutdown()
        cluster.shutdown()
