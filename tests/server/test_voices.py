"""Voices over real sockets: a primed session plays the output of a primed stream, bit for bit."""

import numpy as np
import pytest
import torch
from websockets.exceptions import InvalidStatus

from neucodec_streaming.client import Audio, Cleared, Flushed, Primed, connect
from neucodec_streaming.errors import ConfigError, InputError
from neucodec_streaming.protocol.messages import Clear, Flush, Prime
from neucodec_streaming.server.voices import read_voices
from tests.server.hosting import hosted, talk
from tests.server.sessions.test_parking import parked
from tests.server.test_resume import Caller
from tests.streaming.engine.fake import FakeRunner
from tests.streaming.models import codec_of

RNG = np.random.default_rng(3)
ANNA, BEN, OWN, TEXT = (RNG.integers(0, 65_536, size).astype(np.uint16) for size in (100, 110, 105, 33))
PINNED = {"batch_sizes": (1,), "max_sessions": 2, "workers": 1, "profiles": {"default": None}, "resume_s": 30.0}
DECODE = "/v1/decode?output_format=f32le"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("voices")
    np.save(path / "anna.npy", ANNA)
    (path / "ben.json").write_text(str(BEN.tolist()))
    (path / "notes.txt").write_text("no voice")
    return path


@pytest.fixture(scope="module")
def host(folder):
    with hosted(voices=str(folder), park_after_s=0.05, **PINNED) as running:
        yield running


def utterance(voice: np.ndarray | None, tokens: np.ndarray = TEXT) -> bytes:
    stream = codec_of("golden").decoder_stream()
    stream.prime(voice)
    return np.concatenate([stream.feed(tokens), stream.flush()]).astype("<f4").tobytes()


async def said(client, *before) -> bytes:
    begin = len(client.output)
    await client.send(*before, TEXT.tobytes(), Flush())
    await client.hear_until(Flushed)
    return client.output[begin:]


async def test_a_primed_session_equals_a_primed_stream_after_flush_and_clear_too(host):
    async with talk(host.url, DECODE) as client:
        assert await said(client) == utterance(None)
        for message, voice in ((Prime("anna"), ANNA), (Prime(tokens=tuple(OWN.tolist())), OWN), (Prime("ben"), BEN)):
            assert await said(client, message) == utterance(voice)
            assert client.messages[-2:] == [Primed(len(voice)), Flushed()]
            assert await said(client) == utterance(voice)
            await client.send(TEXT.tobytes(), Clear())
            await client.hear_until(Cleared)
            assert await said(client) == utterance(voice)
        assert await said(client, Prime(tokens=())) == utterance(None)
        assert client.messages[-2:] == [Primed(0), Flushed()]
        await client.finish()


async def test_the_query_sets_the_voice_and_a_message_changes_it_for_the_next_utterance(host):
    async with talk(host.url, DECODE + "&voice=anna") as client:
        begin = TEXT[:2].tobytes()
        await client.send(begin, Prime("ben"), TEXT[2:].tobytes(), Flush())
        await client.hear_until(Flushed)
        assert client.output == utterance(ANNA)
        assert await said(client) == utterance(BEN)
        await client.send(begin, Prime("anna"), Clear())
        await client.hear_until(Cleared)
        assert await said(client) == utterance(ANNA)
        await client.finish()


async def test_a_parked_session_keeps_its_voice(host):
    async with talk(host.url, DECODE + "&voice=anna") as client:
        await parked(host)
        assert await said(client) == utterance(ANNA)
        await parked(host)
        await client.send(TEXT[:3].tobytes(), Prime("ben"))
        await parked(host)
        begin = len(client.output)
        await client.send(TEXT[3:].tobytes(), Flush())
        await client.hear_until(Flushed)
        assert client.output[begin:] == utterance(ANNA)
        await parked(host)
        assert await said(client) == utterance(BEN)
        await client.finish()


async def test_a_roundtrip_is_primed_and_plays_as_many_samples(host):
    pcm = (RNG.standard_normal(16_000) * 3000).astype("<i2").tobytes()
    heard = []
    for target in ("/v1/roundtrip?voice=anna", "/v1/roundtrip"):
        async with talk(host.url, target) as client:
            await client.send(pcm)
            await client.finish()
            heard.append(client.output)
    assert len(heard[0]) == len(heard[1]) and heard[0] != heard[1]


@pytest.mark.parametrize(
    "query, change, how",
    [
        ("", None, "exact"),
        ("", ANNA[::-1], "approximate"),  # the session may have primed any voice by message
        ("&voice=ben", ANNA[::-1], "exact"),
        ("&voice=anna", ANNA[::-1], "approximate"),
    ],
)
async def test_another_server_resumes_in_the_same_voice(host, folder, tmp_path, query, change, how):
    np.save(tmp_path / "anna.npy", ANNA if change is None else change)
    (tmp_path / "ben.json").write_text((folder / "ben.json").read_text())
    client = Caller(DECODE + query)
    await client.call(host.url)
    await client.say(Prime(tokens=tuple(OWN.tolist())), TEXT.tobytes())
    await client.hear_until(Primed)
    while not client.heard:
        await client.hear()
    client.lose()
    with hosted(voices=str(tmp_path), **PINNED) as other:
        assert (await client.call(other.url)).resumed == how
        await client.finish()
    assert client.heard == utterance(OWN)
    assert [event for event in client.events if isinstance(event, Primed)] == [Primed(105)]


async def test_an_unknown_voice_is_refused_in_the_query_and_in_the_message(host):
    for target, reason in (("/v1/decode?voice=nobody", "anna, ben"), ("/v1/encode?voice=anna", "leave it out")):
        with pytest.raises(InvalidStatus) as refused:
            async with talk(host.url, target):
                pass
        assert refused.value.response.status_code == 400 and reason in refused.value.response.body.decode()
    for message in (Prime("nobody"), Prime("../anna")):
        async with talk(host.url, "/v1/decode") as client:
            await client.send(message)
            failure = await client.fail()
            assert failure.code == "bad_input" and "anna, ben" in failure.message
    with hosted(FakeRunner()) as bare:
        async with talk(bare.url, "/v1/encode") as client:
            await client.socket.send('{"type":"prime","voice":"anna"}')
            failure = await client.fail()
            assert failure.code == "bad_input" and "--voices" in failure.message


async def test_the_client_primes_by_name_by_tokens_and_on_connecting(host):
    async with connect(host.url, kind="decode", output_format="f32le", voice="anna") as connection:
        heard = []
        for voice in ("anna", "ben", OWN, None):
            await connection.prime(voice)
            await connection.send(TEXT)
            await connection.flush()
        with pytest.raises(InputError, match="too short"):
            await connection.prime(OWN[:99])
        await connection.end()
        events = [event async for event in connection]
        heard = b"".join(event.samples.astype("<f4").tobytes() for event in events if isinstance(event, Audio))
        assert heard == utterance(ANNA) + utterance(BEN) + utterance(OWN) + utterance(None)
        assert [event.tokens for event in events if isinstance(event, Primed)] == [100, 110, 105, 0]


def test_a_folder_of_voices_is_read_by_name_and_faults_are_reported(folder, tmp_path):
    torch.save(torch.from_numpy(ANNA.astype(np.int64)), tmp_path / "a.pt")
    (tmp_path / "b.tok").write_bytes(BEN.tobytes())
    found = read_voices(str(tmp_path)).tokens
    assert list(found) == ["a", "b"] and (found["a"] == ANNA).all() and (found["b"] == BEN).all()
    np.save(tmp_path / "a.npy", ANNA)
    with pytest.raises(ConfigError, match="rename one"):
        read_voices(str(tmp_path))
    np.save(tmp_path / "a.npy", ANNA[:99])
    (tmp_path / "a.pt").unlink()
    with pytest.raises(ConfigError, match=r"a\.npy is not a voice.*99"):
        read_voices(str(tmp_path))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_voices(str(tmp_path / "none"))
