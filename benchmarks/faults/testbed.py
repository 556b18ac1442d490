"""The server and the network of `benchmarks.faults`, and their faults."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, contextmanager, suppress

from benchmarks.common.faulty_proxy import Proxy, proxy
from demos.server_process import ServerProcess

LINK_DOWN = "link down"
SETTLE_S = 45.0
"""Timeout of the server forgetting absent clients: lost sessions are kept for 30 s."""
DRAIN_S = 0.5
SPACE, OUTSIDE, INSIDE = "neucodec-faults", "ncf-outside", "ncf-inside"
OUTSIDE_ADDRESS, INSIDE_ADDRESS = "10.213.7.1", "10.213.7.2"
PORT = 18_765
CLIENT = """
import asyncio, sys
import numpy as np
from neucodec_streaming.client import connect
async def main():
    async with connect(sys.argv[1], kind="encode") as connection:
        print("open", flush=True)
        while True:
            await connection.send(np.zeros(320, np.float32))
            await asyncio.sleep(0.02)
asyncio.run(main())
"""


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def link():
    """A network namespace with one link to here; False if it cannot be created (needs root and iproute2)."""
    with suppress(OSError, subprocess.CalledProcessError):
        _ip("netns", "delete", SPACE)  # of a run that was killed
    try:
        _ip("netns", "add", SPACE)
    except (OSError, subprocess.CalledProcessError):
        yield False
        return
    try:
        _ip("link", "add", OUTSIDE, "type", "veth", "peer", "name", INSIDE, "netns", SPACE)
        _ip("address", "add", f"{OUTSIDE_ADDRESS}/30", "dev", OUTSIDE)
        _ip("link", "set", OUTSIDE, "up")
        for words in (f"address add {INSIDE_ADDRESS}/30 dev {INSIDE}", f"link set {INSIDE} up", "link set lo up"):
            _ip("-n", SPACE, *words.split())
        yield True
    except subprocess.CalledProcessError:
        yield False
    finally:
        with suppress(subprocess.CalledProcessError):
            _ip("netns", "delete", SPACE)


class World:
    """A server that is restarted at the same address whenever it ends."""

    def __init__(self, model: str, batch_sizes: str, has_link: bool) -> None:
        self.has_link = has_link
        self._host = INSIDE_ADDRESS if has_link else "127.0.0.1"
        self.server = ServerProcess(
            *("--model", model, "--host", self._host, "--port", PORT, "--workers", "1", "--profiles", "default"),
            *("--batch-sizes", batch_sizes, "--max-sessions", "16", "--max-load", "1e9", "--drain-s", DRAIN_S),
            *("--max-behind-s", "1e9", "--max-attempts-per-minute", "100000", "--log-level", "error"),
            prefix=["ip", "netns", "exec", SPACE] if has_link else [],
        )
        self._busy = asyncio.Lock()
        self.restarts = 0

    @property
    def url(self) -> str:
        return self.server.url

    def network(self, rng: random.Random):
        return proxy(self._host, PORT, rng.randrange(1 << 30))

    async def inflict(self, fault: str, network: Proxy, rng: random.Random) -> None:
        match fault:
            case "reset":
                network.reset()
            case "cut":
                network.cut()
            case "cut at a byte":
                rng.choice([network.to_server, network.to_client]).cut_after_bytes(rng.randrange(1, 4000))
            case "half-open":
                network.half_open()
            case "stall":
                network.stall()
                await asyncio.sleep(rng.uniform(0.5, 6.0))
                network.resume()
            case "late":
                network.to_client.delay_s = network.to_server.delay_s = rng.uniform(0.05, 0.5)
                network.to_client.jitter_s = 0.2
            case "link down":
                _ip("-n", SPACE, "link", "set", INSIDE, "down")  # here, the route would lead elsewhere
                await asyncio.sleep(rng.uniform(0.5, 6.0))
                _ip("-n", SPACE, "link", "set", INSIDE, "up")
            case "server killed" | "server stopped":
                if self._busy.locked():  # running, for this session too
                    async with self._busy:
                        return
                async with self._busy:
                    how = signal.SIGKILL if fault == "server killed" else signal.SIGTERM
                    await asyncio.to_thread(self.server.stop, how)
                    await asyncio.to_thread(self.server.start)
                self.restarts += 1
            case "client killed":
                await self._kill_client()

    async def _kill_client(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CLIENT, self.url),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert process.stdout is not None
        with suppress(TimeoutError):
            await asyncio.wait_for(process.stdout.readline(), 20.0)
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def sessions_left(self) -> int:
        """Number of sessions that the server holds once all clients are gone."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + SETTLE_S
        left = await asyncio.to_thread(self._sessions)
        while left and loop.time() < until_s:
            await asyncio.sleep(1.0)
            left = await asyncio.to_thread(self._sessions)
        return left

    def _sessions(self) -> int:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{self._host}:{PORT}/readyz", timeout=10) as response:
            return json.load(response)["sessions"]


@asynccontextmanager
async def world(model: str, batch_sizes: str) -> AsyncIterator[World]:
    """A server, ready, behind its own link if this user may create one."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with link() as has_link:
        made = World(model, batch_sizes, has_link)
        async with made.server:
            yield made
