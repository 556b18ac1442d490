"""A language model's tokens through a decoding session: the stand-in model, the fake server, real sockets."""

import asyncio
import random
from contextlib import aclosing, asynccontextmanager

import numpy as np
import pytest

from demos.language_model import Pace
from demos.speech_lm_server import stand_in
from neucodec_streaming.client.connection import connect
from neucodec_streaming.client.errors import FileError
from neucodec_streaming.client.speech_lm import (
    KEY_VARIABLE,
    ReferenceVoice,
    SpeechLM,
    SpeechReport,
    TextToSpeech,
    read_reference,
    read_spec,
)
from neucodec_streaming.errors import ConfigError, SpeechLMError, TokenError
from neucodec_streaming.protocol.speech_lm import SpeechLMSpec, SpeechPiece
from tests.client.fake_server import fake_server

FAST = Pace(prompt_s=0, tokens_per_second=20_000, pause_every=10**9)
SLOW = Pace(prompt_s=0, tokens_per_second=500, pause_every=10**9)
TOKENS = np.random.default_rng(0).integers(0, 32_768, 40).astype(np.uint16)


def heard_as(tokens):
    return np.repeat(tokens, 480).astype(np.int16).astype(np.float32) / 32_768


async def all_of(speech, text="Hello.", report=None):
    parts = [samples async for samples in speech.say(text, report)]
    return np.concatenate([*parts, np.zeros(0, np.float32)])


@asynccontextmanager
async def speaking(spec, **options):
    async with (
        fake_server() as server,
        SpeechLM(spec, **options) as model,
        connect(server.url, kind="decode") as connection,
    ):
        yield TextToSpeech(model, connection)


@asynccontextmanager
async def answering(status_and_headers, body=b""):
    """Yields the base URL of a server with only one answer."""

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status_and_headers}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


@pytest.mark.parametrize("api", ["completions", "chat"])
async def test_the_models_speech_is_decoded_sample_for_sample(api):
    async with stand_in(TOKENS, FAST) as model, speaking(SpeechLMSpec(model.url, api), model="nutts") as speech:
        for _ in range(2):
            report = SpeechReport()
            assert np.array_equal(await all_of(speech, "Hello.", report), heard_as(TOKENS))
            assert (report.tokens, report.samples) == (TOKENS.size, TOKENS.size * 480)
            assert 0 < report.first_token_s < report.first_audio_s
    said = model.requests[0]
    assert (said["model"], said["stream"], said["path"].count("chat")) == ("nutts", True, api == "chat")
    assert (said["messages"][0]["content"] if api == "chat" else said["prompt"]) == "Hello."


async def test_the_key_goes_into_a_header(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "Of-The-Environment")
    async with stand_in(TOKENS, FAST) as model:
        for options in ({}, {"api_key": "given"}):
            async with speaking(SpeechLMSpec(model.url), **options) as speech:
                await all_of(speech)
        keys = [request["key"] for request in model.requests]
    assert keys == ["bearer of-the-environment", "bearer given"]


async def test_an_interruption_closes_the_model_within_100_ms_and_the_next_text_is_clean():
    loop = asyncio.get_running_loop()
    tokens = np.arange(2000, dtype=np.uint16)
    async with stand_in(tokens, SLOW) as model, speaking(SpeechLMSpec(model.url)) as speech:
        async with aclosing(speech.say("A long story.")) as audio:
            await anext(audio)
            begun_s = loop.time()
        await asyncio.wait_for(model.cut_off.wait(), 5)
        assert model.cut_off_s - begun_s < 0.1
        assert model.sent_tokens < 1000
        begun = await anext(again := speech.say("Another."))
        assert np.array_equal(begun, heard_as(tokens[: begun.size // 480]))
        await again.aclose()


async def test_a_cancelled_listener_is_an_interruption_too():
    async with stand_in(np.arange(2000, dtype=np.uint16), SLOW) as model, speaking(SpeechLMSpec(model.url)) as speech:
        began = asyncio.Event()

        async def listen():
            async for _ in speech.say("A long story."):
                began.set()

        listening = asyncio.create_task(listen())
        await asyncio.wait_for(began.wait(), 5)
        listening.cancel()
        await asyncio.wait_for(model.cut_off.wait(), 5)
        with pytest.raises(asyncio.CancelledError):
            await listening


class HeldConnection:
    """Reads one packet and then stops."""

    def __init__(self):
        self.taken = 0
        self.full = asyncio.Event()

    async def send(self, tokens):
        self.taken += 1
        self.full.set()
        await asyncio.Event().wait()

    async def clear(self):
        pass

    async def __anext__(self):
        await asyncio.Event().wait()


class EndlessModel:
    def __init__(self):
        self.given = 0

    @asynccontextmanager
    async def answer(self, text, reference):
        async def pieces():
            while True:
                self.given += 1
                yield SpeechPiece([1])
                await asyncio.sleep(0)

        yield pieces()


async def test_back_pressure_of_the_session_reaches_the_model():
    connection, model = HeldConnection(), EndlessModel()
    listening = asyncio.create_task(anext(TextToSpeech(model, connection).say("Hello.")))
    await connection.full.wait()
    for _ in range(100):
        await asyncio.sleep(0)
    assert (connection.taken, model.given) == (1, 1)
    listening.cancel()


async def test_several_utterances_of_one_answer_are_flushed_one_by_one():
    text = "<|s_1|><|s_2|></s><|s_3|>"
    body = f'data: {{"choices": [{{"text": "{text}", "finish_reason": "stop"}}]}}\n\n'.encode()
    async with (
        answering("200 OK", body) as url,
        fake_server() as server,
        SpeechLM(SpeechLMSpec(url)) as model,
        connect(server.url, kind="decode") as connection,
    ):
        flushes = []
        flush = connection.flush

        async def noted():
            flushes.append(connection.input_position)
            await flush()

        connection.flush = noted
        assert np.array_equal(await all_of(TextToSpeech(model, connection)), heard_as([1, 2, 3]))
        assert flushes == [2, 3]


@pytest.mark.parametrize(
    ("answer", "body", "kind", "says"),
    [
        ("404 Not Found", b'{"detail": "no model x"}', SpeechLMError, "HTTP 404: no model x"),
        ("200 OK", b"data: nonsense\n\n", SpeechLMError, "not a completion chunk"),
        ("200 OK", b'{"choices": []}', SpeechLMError, "was interrupted"),
        ("200 OK", b"data: [DONE]\n\n", SpeechLMError, "contains no"),
    ],
)
async def test_failures_of_the_model_are_raised(answer, body, kind, says):
    async with answering(answer, body) as url, speaking(SpeechLMSpec(url)) as speech:
        with pytest.raises(kind, match=says):
            await all_of(speech)


async def test_speech_before_a_failure_is_delivered_before_the_error():
    body = b'data: {"choices": [{"text": "<|speech_7|><|speech_8|><|speech_70000|>"}]}\n\n'
    heard = []
    async with answering("200 OK", body) as url, speaking(SpeechLMSpec(url)) as speech:
        with pytest.raises(TokenError, match="70000"):
            async for samples in speech.say("Hello."):
                heard.append(samples)
    assert np.array_equal(np.concatenate(heard), heard_as([7, 8]))


async def test_an_unreachable_model_is_named():
    async with answering("200 OK") as url:
        pass
    async with speaking(SpeechLMSpec(url)) as speech:
        with pytest.raises(SpeechLMError, match=f"{url} does not respond.*is it running"):
            await all_of(speech)


async def test_a_template_is_filled_from_a_reference_and_its_transcript(tmp_path):
    (tmp_path / "dave.tok").write_bytes(np.array([3, 4], "<u2").tobytes())
    (tmp_path / "dave.txt").write_text("So I said.\n")
    (tmp_path / "prompt.txt").write_text("<{reference_text} {text}>{codes}")
    reference = read_reference(tmp_path / "dave.tok")
    async with stand_in(TOKENS, FAST) as model:
        spec = read_spec(model.url, api="completions", template=str(tmp_path / "prompt.txt"), tag=None)
        async with (
            fake_server() as server,
            SpeechLM(spec) as lm,
            connect(server.url, kind="decode") as connection,
        ):
            await all_of(TextToSpeech(lm, connection, reference), "Hi.")
            with pytest.raises(ConfigError, match="voice"):
                await all_of(TextToSpeech(lm, connection), "Hi.")
    assert [request["prompt"] for request in model.requests] == ["<So I said. Hi.><|speech_3|><|speech_4|>"]


def test_unreadable_prompt_files_are_named(tmp_path):
    with pytest.raises(FileError, match="nothing"):
        read_spec("http://h/v1", api="chat", template=str(tmp_path / "nothing.json"), tag=None)
    (tmp_path / "a.tok").write_bytes(b"\1\0")
    assert isinstance(read_reference(tmp_path / "a.tok"), ReferenceVoice)


async def test_random_paces_and_partitions_change_nothing():
    rng = random.Random(0)
    for _ in range(5):
        tokens = np.array([rng.randrange(32_768) for _ in range(rng.randrange(1, 60))], np.uint16)
        async with stand_in(tokens, FAST, rng.randrange(1000)) as model, speaking(SpeechLMSpec(model.url)) as speech:
            assert np.array_equal(await all_of(speech), heard_as(tokens))
