"""A decoder of another rate: its rate is the default, and other rates are resampled from it."""

import numpy as np
import pytest
import soundfile

from neucodec_streaming.client.cli import main
from neucodec_streaming.client.connection import connect
from neucodec_streaming.client.events import Audio
from neucodec_streaming.client.neutts import RemoteCodec
from neucodec_streaming.client.sync import decode, roundtrip
from neucodec_streaming.tokens import tokens_to_text
from tests.server.hosting import hosted, talk
from tests.streaming.engine.fake import FakeRunner

TOKENS = np.arange(40, dtype=np.uint16) + 30_000


@pytest.fixture(params=[44_100, 48_000])
def host(request):
    runner = FakeRunner()
    runner.output_hop = request.param // 50
    with hosted(runner, resume_s=30.0) as running:
        running.rate = request.param
        yield running


async def test_the_default_output_rate_is_the_models(host):
    async with talk(host.url, "/v1/decode?output_format=f32le") as client:
        assert client.seen[0].output.rate == host.rate
        await client.send(TOKENS.tobytes())
        await client.finish()
    expected = np.repeat(TOKENS.astype(np.float32) / 65_536, host.rate // 50)
    np.testing.assert_array_equal(np.frombuffer(client.output, "<f4"), expected)


@pytest.mark.parametrize("rate", [None, 24_000])
async def test_the_client_gets_the_requested_rate_or_the_models(host, rate):
    async with connect(host.url, kind="decode", output_rate=rate) as connection:
        assert connection.ready.output.rate == (rate or host.rate)
        await connection.send(TOKENS[:20])
        connection._websocket.transport.abort()  # the rate is kept when the session resumes
        await connection.send(TOKENS[20:])
        await connection.end()
        audio = [event.samples async for event in connection if isinstance(event, Audio)]
    assert sum(map(len, audio)) == TOKENS.size * (rate or host.rate) // 50


def test_a_file_has_the_rate_of_the_model(host, tmp_path):
    TOKENS.tofile(tmp_path / "in.tok")
    assert main(["decode", str(tmp_path / "in.tok"), str(tmp_path / "out.wav"), "--server", host.url]) == 0
    audio, rate = soundfile.read(tmp_path / "out.wav")
    assert rate == host.rate and len(audio) == TOKENS.size * rate // 50


def test_neutts_gets_the_24_khz_that_it_plays(host):
    codec = RemoteCodec(host.url)
    assert codec.decode_code(TOKENS[None, None].astype(np.int64)).shape == (1, 1, TOKENS.size * 480)
    assert sum(map(len, codec.decode_stream([tokens_to_text(TOKENS)]))) == TOKENS.size * 480


def test_a_script_gets_the_requested_rate_or_the_models(host):
    pcm = np.zeros(16_000, np.float32)
    for rate in (None, 24_000):
        assert decode(TOKENS, host.url, output_rate=rate).size == TOKENS.size * (rate or host.rate) // 50
        assert roundtrip(pcm, host.url, output_rate=rate).size == (rate or host.rate)
