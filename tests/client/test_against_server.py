"""The client against the real server on the golden model: the output equals the library's."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Self

import numpy as np
import pytest
import soundfile

import neucodec_streaming.client
from neucodec_streaming import load_codec
from neucodec_streaming.client.cli import main
from neucodec_streaming.client.connection import connect
from neucodec_streaming.client.events import Audio, Cleared, Done, Flushed, Tokens
from neucodec_streaming.client.files import read_audio, read_tokens
from neucodec_streaming.errors import CapacityError, ConfigError
from tests.conftest import ROOT
from tests.server.hosting import GOLDEN, hosted


@pytest.fixture(scope="module")
def server():
    with hosted(batch_sizes=(1,), profiles={"default": None}, max_sessions=2) as host:
        yield host


@pytest.fixture(scope="module")
def codec():
    return load_codec(GOLDEN)


@pytest.fixture(scope="module")
def recording(data_folder, tmp_path_factory):
    """0.9 s of real speech, in stereo at 44.1 kHz."""
    speech = read_audio(data_folder.parent.parent / "demos" / "data" / "speech.flac", 44_100)[
        44_100 : 44_100 * 19 // 10
    ]
    path = tmp_path_factory.mktemp("speech") / "in.flac"
    soundfile.write(path, np.stack([speech, speech], axis=1), 44_100)
    return path


async def run(*arguments) -> int:
    return await asyncio.to_thread(main, [str(argument) for argument in arguments])


async def test_encode_and_decode_equal_the_library(server, codec, recording, tmp_path, capsys):
    token_file, wav_file = tmp_path / "out.tok", tmp_path / "out.wav"
    assert await run("encode", recording, token_file, "--server", server.url, "--json") == 0
    pcm = np.round(read_audio(recording, 16_000) * 32_768).astype(np.int16).astype(np.float32) / 32_768
    encoder = codec.encoder_stream()
    tokens = np.concatenate([encoder.feed(pcm), encoder.flush()])
    assert np.array_equal(read_tokens(token_file), tokens)
    figures = json.loads(capsys.readouterr().out)
    assert (figures["tokens"], figures["latency_ms"]) == (pcm.size // 320, encoder.latency_ms)

    assert await run("decode", token_file, wav_file, "--server", server.url) == 0
    decoder = codec.decoder_stream()
    audio = np.concatenate([decoder.feed(tokens), decoder.flush()])
    heard, rate = soundfile.read(wav_file, dtype="float32")
    assert rate == 24_000
    assert np.abs(heard - np.clip(audio, -1, 1)).max() <= 1 / 32_768


async def test_roundtrip_equals_encode_then_decode(server, recording, tmp_path):
    url = ["--server", server.url]
    assert await run("encode", recording, tmp_path / "a.tok", *url) == 0
    assert await run("decode", tmp_path / "a.tok", tmp_path / "a.wav", *url) == 0
    assert await run("roundtrip", recording, tmp_path / "b.wav", *url) == 0
    one, other = (soundfile.read(tmp_path / name, dtype="int16")[0] for name in ("a.wav", "b.wav"))
    assert one.size == other.size
    assert np.abs(one.astype(int) - other).max() <= 1


async def test_an_utterance_after_flush_equals_the_first(server, recording):
    pcm = read_audio(recording, 16_000)[:8_000]
    async with connect(server.url, kind="encode") as connection:
        utterances = []
        for _ in range(2):
            await connection.send(pcm)
            await connection.flush()
            tokens = []
            async for event in connection:
                if isinstance(event, Flushed):
                    break
                tokens.append(event.tokens)
            utterances.append(np.concatenate(tokens))
        await connection.end()
        assert [type(event) for event in [event async for event in connection]] == [Done]
    assert utterances[0].size == 25
    assert np.array_equal(*utterances)


async def test_clear_drops_the_rest_of_an_utterance(server):
    tokens = np.random.default_rng(0).integers(0, 65_536, 400).astype(np.uint16)
    async with connect(server.url, kind="decode") as connection:
        await connection.send(tokens)
        while not isinstance(await anext(connection), Audio):
            pass
        await connection.clear()
        cleared = await anext(connection)
        while not isinstance(cleared, Cleared):
            cleared = await anext(connection)
        assert cleared.input == 400
        assert cleared.output == connection.output_position
        await connection.send(tokens[:10])
        await connection.end()
        events = [event async for event in connection]
    assert sum(event.samples.size for event in events if isinstance(event, Audio)) == 10 * 480


async def test_a_mark_arrives_after_the_output_of_its_frames(server):
    async with connect(server.url, kind="encode") as connection:
        await connection.send(np.zeros(320 * 7, np.float32))
        await connection.mark("here")
        await connection.end()
        events = [event async for event in connection]
    kinds = [type(event).__name__ for event in events]
    assert kinds[-2:] == ["Marked", "Done"]
    assert sum(event.tokens.size for event in events if isinstance(event, Tokens)) == 7


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


class Unplugged(Exception):
    """Stops an example that listens forever."""


class RecordedMicrophone:
    """A second of silence, after which the device is unplugged."""

    def __init__(self, rate: int) -> None:
        self.packets = [np.zeros(rate // 50, np.float32)] * 50

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    async def __aiter__(self) -> AsyncIterator[np.ndarray]:
        for packet in self.packets:
            yield packet
        await asyncio.sleep(1.0)  # tokens arrive meanwhile
        raise Unplugged


class RecordingSpeaker(RecordedMicrophone):
    """Counts the samples pushed to any instance."""

    samples = 0

    def push(self, samples: np.ndarray) -> None:
        RecordingSpeaker.samples += samples.size

    def finish(self) -> None:
        pass

    async def drained(self) -> None:
        pass


@pytest.mark.slow
async def test_the_readmes_microphone_example_prints_and_saves_tokens(server, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(neucodec_streaming.client, "Microphone", RecordedMicrophone, raising=False)
    code = examples("README.md")[0].replace("ws://127.0.0.1:8765", server.url)
    with pytest.raises(ExceptionGroup, match="unhandled errors"):
        await asyncio.to_thread(exec, code, {})
    assert capsys.readouterr().out.startswith("0 [")
    assert np.fromfile("speech.tok", "<u2").size > 0


async def test_the_readmes_speaker_example_plays_every_token(server, tmp_path, monkeypatch):
    monkeypatch.setattr(neucodec_streaming.client, "Speaker", RecordingSpeaker, raising=False)
    monkeypatch.chdir(tmp_path)
    np.arange(20, dtype="<u2").tofile("speech.tok")
    RecordingSpeaker.samples = 0
    await asyncio.to_thread(exec, examples("README.md")[1].replace("ws://127.0.0.1:8765", server.url), {})
    assert RecordingSpeaker.samples == 20 * 480


def test_the_library_example_of_the_client_page_runs():
    names: dict = {"packets": [np.zeros(1_000, np.float32)] * 8}
    exec(examples("docs/client.md")[-1].replace('"nano"', repr(str(GOLDEN))), names)
    assert (names["audio"].dtype, names["tail"].dtype) == (np.float32, np.float32)


async def test_refusals_name_the_invalid_value(server):
    with pytest.raises(ConfigError, match="profile"):
        async with connect(server.url, profile="lightning"):
            pass
    with pytest.raises(ConfigError, match="unknown"):
        async with connect(server.url + "/elsewhere"):
            pass


async def test_a_full_server_accepts_again_after_a_session_ends(server):
    async with connect(server.url), connect(server.url):
        with pytest.raises(CapacityError, match="2 sessions"):
            async with connect(server.url):
                pass
    await server.emptied()
    async with connect(server.url) as connection:
        assert connection.ready.model
