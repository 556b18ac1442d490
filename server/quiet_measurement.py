"""Measures the capacity again once other programs leave the machine alone and no session is open.

One step size after another, on all workers at once, as in operation. A session that opens meanwhile waits for one of
them at most, and the measurement starts again when the last session has ended.
"""

import asyncio
from collections.abc import Mapping, Sequence

from neucodec_streaming.engine.scheduler import Pool
from neucodec_streaming.server.other_load import BUSY_SHARE, OtherLoad
from neucodec_streaming.server.sessions.registry import Sessions
from neucodec_streaming.server.workers.handle import WorkerHandle

QUIET_S = 5.0
"""How long the machine must be quiet before and after a measurement."""


async def measured_quietly(
    sessions: Sessions, devices: Sequence[WorkerHandle], pools: Mapping[Pool, Sequence[int]]
) -> dict[Pool, dict[int, float]]:
    """Seconds of a step by pool and batch size, of the slowest worker, if nothing disturbed the measurement."""
    while True:
        if await _is_quiet(sessions):
            found = await _measured(devices, pools)
            if found is not None and await _is_quiet(sessions):
                return found


async def _is_quiet(sessions: Sessions) -> bool:
    load = OtherLoad()
    await asyncio.sleep(QUIET_S)
    return not sessions.count and load.share() <= BUSY_SHARE


async def _measured(
    devices: Sequence[WorkerHandle], pools: Mapping[Pool, Sequence[int]]
) -> dict[Pool, dict[int, float]] | None:
    found: dict[Pool, dict[int, float]] = {}
    for pool, sizes in pools.items():
        times: dict[int, float] = {}
        for size in sizes:
            seconds = await asyncio.gather(*(device.measure(pool, size) for device in devices))
            known = [one for one in seconds if one is not None]
            if len(known) < len(devices):
                return None
            times[size] = max(known)
        # fewer rows that took longer than more rows: noise
        found[pool] = {size: min(times[more] for more in sizes if more >= size) for size in sizes}
    return found
