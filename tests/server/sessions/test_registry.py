"""Conversations with a real server over real sockets; the model is arithmetic, so every byte is predictable."""

import asyncio

import numpy as np
import pytest

from neucodec_streaming.protocol.messages import (
    SUBPROTOCOL,
    Clear,
    Cleared,
    Done,
    Flush,
    Flushed,
    Mark,
    Marked,
    Ready,
    Stats,
)
from tests.server.hosting import hosted, s16, talk
from tests.streaming.engine.fake import FakeRunner, audio_of, speech, tokens_of

LEVELS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6]
TOKENS = tokens_of(LEVELS)


@pytest.fixture(scope="module")
def host():
    with hosted(FakeRunner(slots=8), max_sessions=8) as running:
        yield running


async def test_ready_comes_first_and_describes_the_session(host):
    for kind, latency_ms in (("encode", 215.0), ("decode", 200.0), ("roundtrip", 315.0)):
        async with talk(host.url, f"/v1/{kind}") as client:
            ready = client.session.ready
            assert isinstance(ready, Ready)
            assert (ready.model, ready.profile, ready.frame_ms) == ("fake", "default", 20)
            assert (ready.chunk_frames, ready.lookahead_frames, ready.resumed) == (5, 5, "new")
            assert ready.latency_ms == pytest.approx(latency_ms)


async def test_audio_becomes_tokens(host):
    async with talk(host.url, "/v1/encode") as client:
        await client.send(s16(speech(*LEVELS)) + b"ab")
        assert await client.finish() == Done(len(LEVELS) * 320 + 1, len(LEVELS), 1)
        np.testing.assert_array_equal(client.tokens, TOKENS)


async def test_tokens_become_audio(host):
    async with talk(host.url, "/v1/decode") as client:
        await client.send(TOKENS.tobytes())
        assert await client.finish() == Done(len(TOKENS), len(TOKENS) * 480, 0)
        assert client.output == s16(audio_of(TOKENS))


async def test_audio_becomes_audio_in_a_roundtrip(host):
    async with talk(host.url, "/v1/roundtrip?input_format=f32le&output_format=f32le") as client:
        await client.send(speech(*LEVELS).tobytes())
        await client.finish()
        np.testing.assert_array_equal(np.frombuffer(client.output, "<f4"), audio_of(TOKENS))


@pytest.mark.parametrize("size", [2, 222, 640, 1000, 10_000])
async def test_packets_of_any_size_give_the_same_output(host, size):
    data = s16(speech(*LEVELS))
    async with talk(host.url, "/v1/encode") as client:
        for start in range(0, len(data), size):
            await client.send(data[start : start + size])
        await client.finish()
        np.testing.assert_array_equal(client.tokens, TOKENS)


async def test_output_is_sent_as_soon_as_it_is_ready(host):
    async with talk(host.url, "/v1/encode") as client:
        await client.send(s16(speech(*LEVELS[:11])))
        assert await client.hear() == TOKENS[:5].tobytes()


async def test_flush_sends_the_rest_then_flushed_and_resets_the_stream(host):
    async with talk(host.url, "/v1/encode") as client:
        for _ in range(2):
            await client.send(s16(speech(*LEVELS)), Flush())
            await client.hear_until(Flushed)
        np.testing.assert_array_equal(client.tokens, np.tile(TOKENS, 2))
        assert isinstance(client.seen[-1], Flushed)


async def test_several_utterances_may_be_sent_ahead(host):
    async with talk(host.url, "/v1/roundtrip") as client:
        for number in range(3):
            await client.send(s16(speech(*LEVELS)), Mark(number), Flush())
        await client.finish()
        assert client.messages[:-1] == [Marked(0), Flushed(), Marked(1), Flushed(), Marked(2), Flushed()]
        assert client.output == s16(audio_of(np.tile(TOKENS, 3)))


async def test_a_mark_follows_the_output_of_the_last_whole_frame_before_it(host):
    async with talk(host.url, "/v1/encode") as client:
        await client.send(s16(speech(*LEVELS[:7])), Mark("seven"), s16(speech(*LEVELS[7:])), Mark("all"))
        await client.finish()
        counts = {}
        received = 0
        for item in client.seen:
            if isinstance(item, bytes):
                received += len(item) // 2
            elif isinstance(item, Marked):
                counts[item.id] = received
        assert 7 <= counts["seven"] <= 10 and counts["all"] == len(LEVELS)


async def test_clear_drops_the_old_utterance_and_returns_its_marks_first(host):
    async with talk(host.url, "/v1/decode") as client:
        await client.send(TOKENS[:8].tobytes(), Mark("old"), Clear())
        cleared = await client.hear_until(Cleared)
        assert cleared == Cleared(8, 0) and client.messages == [Marked("old", True), cleared]
        await client.send(TOKENS.tobytes())
        done = await client.finish()
        assert done == Done(8 + len(TOKENS), len(TOKENS) * 480, 8)
        assert client.output == s16(audio_of(TOKENS)), "nothing of the old utterance follows cleared"


async def test_clear_in_the_middle_of_a_burst_keeps_positions_consistent(host):
    async with talk(host.url, "/v1/decode") as client:
        burst = np.arange(4000, dtype=np.uint16)
        await client.send(burst.tobytes())
        await client.hear()
        await client.send(Clear())
        cleared = await client.hear_until(Cleared)
        before = client.session.output_position
        assert cleared == Cleared(4000, before) and before % 480 == 0
        await client.send(TOKENS.tobytes())
        done = await client.finish()
        assert done.output == before + len(TOKENS) * 480
        assert done.dropped == 4000 - before // 480


async def test_an_empty_session_ends_with_zeros(host):
    async with talk(host.url, "/v1/roundtrip") as client:
        await client.send(b"")
        assert await client.finish() == Done(0, 0, 0)


async def test_stats_arrive_once_a_second_when_requested(host):
    async with talk(host.url, "/v1/encode?stats=1") as client:
        await client.send(s16(speech(*LEVELS[:4])))
        stats = await client.hear_until(Stats)
        assert stats.buffered_ms == 80.0 and stats.behind_ms == 0.0 and stats.input == 1280


async def test_the_subprotocol_is_optional_and_accepted_when_offered(host):
    async with talk(host.url, "/v1/encode", subprotocols=[SUBPROTOCOL]) as client:
        assert client.socket.subprotocol == SUBPROTOCOL
    async with talk(host.url, "/v1/encode") as client:
        assert client.socket.subprotocol is None


async def test_messages_are_not_compressed(host):
    async with talk(host.url, "/v1/encode", compression="deflate") as client:
        assert not client.socket.protocol.extensions


async def test_concurrent_sessions_get_the_output_that_each_gets_alone(host):
    async def one(number: int) -> None:
        levels = [(number * 7 + place * 3) % 256 for place in range(40 + number * 11)]
        tokens = tokens_of(levels)
        kind = ("encode", "decode", "roundtrip")[number % 3]
        async with talk(host.url, f"/v1/{kind}") as client:
            data = tokens.tobytes() if kind == "decode" else s16(speech(*levels))
            size = 2 * (50 + 97 * number)
            for start in range(0, len(data), size):
                await client.send(data[start : start + size])
                await asyncio.sleep(0)
            await client.finish()
            assert client.output == (tokens.tobytes() if kind == "encode" else s16(audio_of(tokens)))

    await asyncio.gather(*(one(number) for number in range(8)))
    await host.emptied()
