"""Sessions in other formats and rates: exact lengths and bytes for any partition, and the reported latency."""

import random

import numpy as np
import pytest

from neucodec_streaming import audio, load_codec
from neucodec_streaming.audio import pcm_from_bytes, pcm_to_bytes
from neucodec_streaming.config import INPUT_HOP, INPUT_RATE, OUTPUT_RATE, StreamConfig
from neucodec_streaming.engine.engine import Engine, pools_of
from neucodec_streaming.engine.results import Output
from neucodec_streaming.engine.scheduler import Pool
from neucodec_streaming.protocol.messages import Clear, Cleared, Done, Flush, Flushed, Mark, Marked, StreamFormat
from neucodec_streaming.protocol.query import SessionRequest, session_request
from neucodec_streaming.resampler import resample
from neucodec_streaming.server.model import latency_ms
from neucodec_streaming.server.sessions.window_buffer import WindowBuffer
from neucodec_streaming.server.workers.formats import Formats
from tests.server.hosting import GOLDEN, hosted, talk
from tests.streaming.engine.fake import FakeRunner, audio_of, level, tokens_of

TELEPHONE = {"input_format": "mulaw", "input_rate": 8_000, "output_format": "mulaw", "output_rate": 8_000}
FORMATS = [
    TELEPHONE,
    {"input_format": "alaw", "input_rate": 8_000, "output_format": "s16le", "output_rate": 48_000},
    {"input_format": "s16le", "input_rate": 44_100, "output_format": "alaw", "output_rate": 22_050},
    {"input_format": "f32le", "input_rate": 48_000, "output_format": "f32le", "output_rate": 16_000},
    {"input_format": "mulaw", "input_rate": 16_000, "output_format": "mulaw", "output_rate": 24_000},
    {"input_format": "s16le", "input_rate": 8_050, "output_format": "s16le", "output_rate": 47_950},
]


@pytest.fixture(scope="module")
def host():
    with hosted(FakeRunner(slots=8), max_sessions=8) as running:
        yield running


def voice(seed: int, samples: int, rate: int) -> np.ndarray:
    seconds = np.arange(samples) / rate
    return (0.1 * np.sin(2 * np.pi * 200 * seconds) * np.sin(2 * np.pi * (1 + seed) * seconds)).astype(np.float32)


def utterance(request: SessionRequest, seed: int, frames: int, more: int = 0) -> bytes:
    samples = frames * request.input.hop + more
    return pcm_to_bytes(voice(seed, samples, request.input.rate), request.input.format)


def answer(request: SessionRequest, payload: bytes) -> bytes:
    pcm = resample(pcm_from_bytes(payload, request.input.format), request.input.rate, INPUT_RATE)
    frames = len(pcm) // INPUT_HOP
    tokens = tokens_of([level(hop) % 256 for hop in pcm[: frames * INPUT_HOP].reshape(-1, INPUT_HOP)])
    return pcm_to_bytes(resample(audio_of(tokens), OUTPUT_RATE, request.output.rate), request.output.format)


def cut(payload: bytes, unit_bytes: int, rng: random.Random) -> list[bytes]:
    packets, start = [], 0
    while start < len(payload):
        end = start + unit_bytes * rng.choice((1, 40, 160, 333, 2_000, 9_000))
        packets.append(payload[start:end])
        start = end
    return packets


@pytest.mark.parametrize("asked", FORMATS, ids=lambda asked: "-".join(map(str, asked.values())))
async def test_every_whole_frame_gives_one_frame_for_any_packets(host, asked):
    request, rng = session_request("roundtrip", **asked), random.Random(str(asked))
    for frames, more in ((23, 0), (7, request.input.hop - 1), (0, request.input.hop - 1), (0, 0), (1, 1)):
        payload = utterance(request, 3, frames, more)
        async with talk(host.url, request.target) as client:
            assert (client.session.ready.input, client.session.ready.output) == (request.input, request.output)
            await client.send(*cut(payload, request.input.unit_bytes, rng))
            done = await client.finish()
            assert done == Done(frames * request.input.hop + more, frames * request.output.hop, more)
            assert client.output == answer(request, payload)
            assert all(item for item in client.seen if isinstance(item, bytes)), "nothing empty is sent"


async def test_utterances_after_flush_and_clear_start_from_a_clean_state(host):
    request, rng = session_request("roundtrip", **TELEPHONE), random.Random(1)
    first, dropped, last = (utterance(request, seed, 17, 11) for seed in range(3))
    async with talk(host.url, request.target) as client:
        await client.send(*cut(first, 1, rng), Flush(), *cut(last, 1, rng), Flush())
        await client.hear_until(Flushed)
        await client.hear_until(Flushed)
        assert client.output == answer(request, first) + answer(request, last)
        await client.send(*cut(dropped, 1, rng), Clear())
        cleared = await client.hear_until(Cleared)
        assert cleared == Cleared(3 * len(first), client.session.output_position)
        before = client.output
        await client.send(*cut(last, 1, rng))
        done = await client.finish()
        assert client.output[len(before) :] == answer(request, last)
        assert done.input == 4 * len(first) and done.output == cleared.output + len(client.output) - len(before)


async def test_a_mark_is_answered_once_the_resampler_has_output_its_whole_frame(host):
    request = session_request("roundtrip", **TELEPHONE)
    payload = utterance(request, 1, 30)
    async with talk(host.url, request.target) as client:
        await client.send(payload[: 5 * 160], Mark("five"), payload[5 * 160 :], Mark("all"), Flush())
        assert await client.hear_until(Marked) == Marked("five")
        assert 5 * 160 <= len(client.output) < 11 * 160, "within the chunk after it"
        await client.hear_until(Flushed)
        assert client.messages[-2:] == [Marked("all"), Flushed()]
        assert client.output == answer(request, payload)


async def test_non_finite_floats_fail_at_any_rate(host):
    async with talk(host.url, "/v1/encode?input_format=f32le&input_rate=48000") as client:
        await client.send(np.float32([0.0, np.nan]).tobytes())
        failure = await client.fail()
        assert failure.code == "bad_audio" and "sample 1" in failure.message


@pytest.mark.parametrize(("form", "checks"), [("f32le", 1), ("s16le", 0), ("mulaw", 0)])
def test_only_formats_that_allow_invalid_samples_are_checked_and_only_once(form, checks, monkeypatch):
    request, checked = session_request("encode", input_format=form, input_rate=48_000), []
    monkeypatch.setattr(audio, "check_audio", lambda samples: checked.append(len(samples)) or samples)
    config = StreamConfig(5, 5)
    engine = Engine(FakeRunner(pools=[Pool("encode", config)]), gather_s=0)
    session = engine.open("encode", pools_of("encode", config))
    engine.feed(session, Formats(request.input, request.output).read(bytes(9_600 * request.input.unit_bytes)), 0.0)
    assert checked == [9_600] * checks


@pytest.mark.parametrize("kind", ["encode", "decode", "roundtrip"])
@pytest.mark.parametrize("shape", [(5, 5), (2, 3), (1, 0)])
@pytest.mark.parametrize(("input_rate", "output_rate"), [(8_000, 8_000), (48_000, 44_100), (16_000, 24_000)])
def test_latency_ms_is_the_exact_maximum_delay_of_output(kind, shape, input_rate, output_rate):
    request, config = session_request(kind, input_rate=input_rate, output_rate=output_rate), StreamConfig(*shape)
    formats, window_buffer = Formats(request.input, request.output), WindowBuffer(request.input, config)
    engine = Engine(FakeRunner(pools=[Pool(part, config) for part in ("encode", "decode")]), gather_s=0)
    session = engine.open(kind, pools_of(kind, config))
    given, longest_ms = 0, 0.0
    for fed in range(1, request.input.rate * 3 // 5):
        packet = window_buffer.put(bytes(request.input.unit_bytes))
        if not packet:
            continue
        engine.feed(session, formats.read(packet), 0.0)
        before = given
        while engine.wake_s() is not None:
            written = [formats.written(result.data) for result in engine.step(0.0) if isinstance(result, Output)]
            given += request.output.count(b"".join(written))
        if given > before:
            longest_ms = max(longest_ms, fed * 1000 / request.input.rate - before * 1000 / request.output.rate)
    told_ms = latency_ms(kind, config, request.input, request.output)
    assert told_ms - 0.3 <= longest_ms <= told_ms
    assert 0 <= told_ms - latency_ms(kind, config) < 10, "of which resampling is the least part"


@pytest.mark.slow
async def test_a_mulaw_session_at_8_khz_works_with_the_real_model():
    codec = load_codec(str(GOLDEN))
    request, rng = session_request("roundtrip", **TELEPHONE), random.Random(2)
    payload = pcm_to_bytes(np.random.default_rng(0).normal(0, 0.1, 8_000 + 100).astype(np.float32), "mulaw")
    encoder = codec.encoder_stream(StreamConfig(5, 5, codec.default_config.context_frames))
    decoder = codec.decoder_stream(StreamConfig(5, 5, codec.default_config.context_frames))
    with hosted(batch_sizes=(1,), max_sessions=2, profiles={"default": (5, 5)}) as host:
        heard = []
        for _ in range(2):
            async with talk(host.url, request.target) as client:
                await client.send(*cut(payload, 1, rng))
                assert await client.finish() == Done(8_100, 8_000, 100)
                heard.append(client.output)
    assert heard[0] == heard[1], "whatever the packets"
    pcm = resample(pcm_from_bytes(payload, "mulaw"), 8_000, INPUT_RATE)
    tokens = np.concatenate([encoder.feed(pcm), encoder.flush()])
    audio = resample(np.concatenate([decoder.feed(tokens), decoder.flush()]), OUTPUT_RATE, 8_000)
    assert (
        np.abs(pcm_from_bytes(heard[0], "mulaw") - pcm_from_bytes(pcm_to_bytes(audio, "mulaw"), "mulaw")).max() < 0.01
    )


@pytest.mark.parametrize("kind", ["encode", "decode", "roundtrip"])
def test_tokens_have_no_rate_to_resample(kind):
    request = session_request(kind)
    assert request.input.kind == "tokens" or request.input == StreamFormat("audio", "s16le", INPUT_RATE)
    assert latency_ms(kind, StreamConfig(5, 5), request.input, request.output) == latency_ms(kind, StreamConfig(5, 5))


@pytest.mark.parametrize("before", [(), (Flush(),), (Clear(),)])
async def test_an_invalid_sample_is_named_by_its_position_in_the_stream(host, before):
    async with talk(host.url, "/v1/encode?input_format=f32le") as client:
        await client.send(
            bytes(4 * 5000), *before, bytes(4 * 700), bytes(4 * 3) + np.float32(np.nan).tobytes(), Flush()
        )
        failure = await client.fail()
    assert failure.code == "bad_audio"
    found = [int(part) for part in failure.message.split() if part.isdecimal()]
    assert found[0] + found[1] == (703 if before else 5703), failure.message
