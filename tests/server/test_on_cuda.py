"""A whole server on CUDA: sessions of every kind, and a permanent device error."""

import asyncio
import json
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import connect

from neucodec_streaming.server.app import App
from neucodec_streaming.server.settings.fields import Settings
from tests.streaming.models import GOLDEN

DEADLINE_S = 300
SETTINGS = Settings(
    model=str(GOLDEN), device="cuda", port=0, batch_sizes=(2,), profiles={"default": (5, 5)}, max_sessions=2,
    max_load=1e9, max_behind_s=1e6, stuck_after_s=1e6,
)  # fmt: skip


async def answer_to(url: str, kind: str, payload: bytes) -> bytes:
    """All output of a session for one utterance."""
    async with connect(f"{url}/v1/{kind}", max_size=None) as socket:
        assert json.loads(await socket.recv())["type"] == "ready"
        await socket.send(payload)
        await socket.send(json.dumps({"type": "end"}))
        found = b""
        while isinstance(message := await socket.recv(), bytes):
            found += message
        assert json.loads(message)["type"] == "done", message
        return found


@pytest.mark.slow
async def test_sessions_of_every_kind_are_served_until_the_device_fails_for_good(
    cuda: Any,
) -> None:
    async with asyncio.timeout(DEADLINE_S):
        app = App(SETTINGS)
        await app.start()
        await app.loaded()
        try:
            pcm = np.random.default_rng(0).normal(0, 3000, 320 * 13).astype("<i2").tobytes()
            tokens = await answer_to(app.url, "encode", pcm)
            audio = await answer_to(app.url, "decode", tokens)
            assert (len(tokens), len(audio)) == (13 * 2, 13 * 480 * 2)
            both = await asyncio.gather(*(answer_to(app.url, "roundtrip", pcm) for _ in range(2)))
            assert both == [audio, audio]
            if cuda is not None:
                cuda.fault = "an illegal memory access was encountered"
                with pytest.raises(Exception):  # noqa: B017 - the error depends on the moment
                    await answer_to(app.url, "encode", pcm)
                await app.failed()
        finally:
            await app.stop()
