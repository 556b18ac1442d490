"""The real server over the golden model: each session gets the output of its own stream (law 3)."""

import asyncio
import random

import numpy as np
import pytest
import torch

from neucodec_streaming import load_codec
from neucodec_streaming.config import StreamConfig
from neucodec_streaming.protocol.messages import Clear, Cleared, Flush, Flushed
from tests.server.hosting import GOLDEN, hosted, s16, talk

BATCH = 4
PROFILES = {"default": (5, 5), "low": (2, 3)}


@pytest.fixture(scope="module")
def codec():
    torch.set_num_threads(1)
    return load_codec(str(GOLDEN))


@pytest.fixture(scope="module")
def host():
    """A single batch size: the same kernels, so the same bits, independent of other sessions."""
    with hosted(batch_sizes=(BATCH,), max_sessions=6, profiles=PROFILES, park_after_s=0.5) as running:
        yield running


def recording(seed: int, seconds: float) -> np.ndarray:
    """Noise with a varying level, quantised to 16 bits."""
    rng = np.random.default_rng(seed)
    count = int(seconds * 16_000)
    loudness = 0.05 + 0.2 * np.abs(np.sin(np.arange(count) / 3000 + seed))
    return (np.rint(rng.normal(0, loudness) * 32768).clip(-32768, 32767) / 32768).astype(np.float32)


def config(codec, profile: str) -> StreamConfig:
    chunk, lookahead = PROFILES[profile]
    own = codec.default_config
    return StreamConfig(chunk, lookahead, own.context_frames, own.prior_weight)


class Alone:
    def __init__(self, stepper, lane) -> None:
        self.stepper, self.lane = stepper, lane
        self.state = stepper.new_state(2)

    def step(self, window):
        x = np.zeros((BATCH, *self.stepper.window_shape), window.x.dtype)
        x[0] = window.x
        at = torch.tensor([[0, 1, 1, 1], [window.valid, 0, 0, 0], [window.commit, 0, 0, 0]])
        row = self.stepper.step(torch.from_numpy(x), self.state, at[0], at[1], at[2])[0].numpy()
        return self.lane.output(window, row)

    def whole(self, data):
        self.lane.push(data)
        parts = []
        while (window := self.lane.take()) is not None:
            parts.append(self.step(window))
        if (window := self.lane.take_last()) is not None:
            parts.append(self.step(window))
        return np.concatenate(parts) if parts else np.zeros(0)


def alone(codec, kind: str, profile: str, data: np.ndarray) -> bytes:
    from neucodec_streaming.windows import DecoderWindower, EncoderWindower

    chosen = config(codec, profile)
    if kind != "decode":
        data = Alone(codec.encoder(chosen), EncoderWindower(chosen)).whole(data).astype(np.uint16)
    if kind != "encode":
        return s16(Alone(codec.decoder(chosen), DecoderWindower(chosen)).whole(data))
    return data.tobytes()


async def test_sessions_of_all_kinds_ages_and_packet_sizes_are_independent(host, codec):
    rng = random.Random(5)

    async def one(number: int) -> None:
        kind = ("encode", "decode", "roundtrip")[number % 3]
        profile = ("default", "low")[number % 2]
        pcm = recording(number, 0.5 + 0.13 * number)
        data = codec.encode(pcm) if kind == "decode" else pcm
        payload = data.tobytes() if kind == "decode" else s16(pcm)
        async with talk(host.url, f"/v1/{kind}?profile={profile}") as client:
            start = 0
            while start < len(payload):
                size = 2 * rng.randrange(1, 900)
                await client.send(payload[start : start + size])
                start += size
                if rng.random() < 0.2:
                    await asyncio.sleep(0.002)  # a different phase, which must not matter
            await client.finish()
            assert client.output == alone(codec, kind, profile, data), (number, kind, profile)

    await asyncio.gather(*(one(number) for number in range(6)))
    await host.emptied()


async def test_utterances_after_flush_and_clear_start_from_a_clean_state(host, codec):
    pcm = recording(9, 0.7)
    wanted = alone(codec, "roundtrip", "default", pcm)
    async with talk(host.url, "/v1/roundtrip") as client:
        await client.send(s16(pcm), Flush())
        await client.hear_until(Flushed)
        await client.send(s16(recording(3, 0.5)), Clear())
        await client.hear_until(Cleared)
        first = client.output
        await client.send(s16(pcm))
        await client.finish()
        assert first[: len(wanted)] == wanted
        assert client.output[len(first) :] == wanted


async def test_a_parked_session_continues_with_the_same_bits(host, codec):
    pcm = recording(4, 1.0)
    data = s16(pcm)
    async with talk(host.url, "/v1/roundtrip") as client:
        for part in (data[:17_000], data[17_000:]):
            await client.send(part)
            await host.emptied()
        await client.finish()
        assert client.output == alone(codec, "roundtrip", "default", pcm)


async def test_any_batch_size_gives_nearly_the_same_audio(codec):
    tokens = [codec.encode(recording(number, 0.8)) for number in range(3)]

    async def one(url: str, mine: np.ndarray) -> None:
        async with talk(url, "/v1/decode?output_format=f32le") as client:
            await client.send(mine.tobytes())
            await client.finish()
            audio = np.frombuffer(client.output, "<f4")
            stream = codec.decoder_stream(config(codec, "default"))
            wanted = np.concatenate([stream.feed(mine), stream.flush()])
            assert np.abs(audio - wanted).max() <= 1e-4 * max(1.0, np.abs(wanted).max())

    with hosted(batch_sizes=(1, 2, 4), max_sessions=4, profiles={"default": (5, 5)}) as host:
        await asyncio.gather(*(one(host.url, mine) for mine in tokens))
