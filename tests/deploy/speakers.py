"""Speakers on a Ray cluster: sessions through the public client, and their expected output."""

import asyncio
import random

from neucodec_streaming.client import Audio, Resumed
from neucodec_streaming.client import connect as open_session
from tests.server.hosting import GOLDEN
from tests.server.test_resume import uncut

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


class Speaker:
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
        return self.heard == await uncut(url, "/v1/roundtrip", self.packets)
