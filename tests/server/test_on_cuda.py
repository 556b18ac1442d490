"""A whole server on CUDA: sessions of every kind, and a permanent device error."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from websockets.asyncio.client import connect

from neucodec_streaming import load_codec
from neucodec_streaming.errors import ConfigError
from neucodec_streaming.server.app import App
from neucodec_streaming.server.loading import load_engines
from neucodec_streaming.server.settings.fields import Settings
from tests.streaming.models import GOLDEN

DEADLINE_S = 300
SETTINGS = Settings(
    model=str(GOLDEN), device="cuda", port=0, batch_sizes=(2,), profiles={"default": (5, 5)}, max_sessions=2,
    max_load=1e9, max_behind_s=1e6, stuck_after_s=1e6,
)  # fmt: skip


async def answer_to(url: str, kind: str, payload: bytes) -> bytes:
    async with connect(f"{url}/v1/{kind}", max_size=None) as socket:
        assert json.loads(await socket.recv())["type"] == "ready"
        await socket.send(payload)
        await socket.send(json.dumps({"type": "end"}))
        found = b""
        while isinstance(message := await socket.recv(), bytes):
            found += message
        assert json.loads(message)["type"] == "done", message
        return found


def test_slots_that_do_not_fit_into_the_memory_are_refused_before_they_are_allocated(
    cuda: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = load_codec(GOLDEN, device="cuda", kinds=("decode",))
    each = codec.decoder(codec.default_config).slot_bytes
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda where=None: (int(12.6 * each), 80 << 30))
    settings = replace(SETTINGS, dtype="float32", kinds=("decode",), profiles={"default": None}, max_sessions=10)
    with pytest.raises(ConfigError, match=r"max_sessions is 10: .* set it to 9 or less"):
        load_engines(settings)


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
