"""POST /v1/audio/speech by OpenAI's own client and by hand: formats, errors, and a client that disconnects."""

import asyncio
import base64
import io
import json
import ssl
import sys
from contextlib import asynccontextmanager

import httpx
import numpy as np
import openai
import pytest
import soundfile

from demos.language_model import Pace
from demos.speech_lm_server import stand_in
from neucodec_streaming.client import connect
from neucodec_streaming.errors import ConfigError
from neucodec_streaming.server.auth.keys import key_line, new_key
from neucodec_streaming.server.http.speech import parse_request
from neucodec_streaming.server.http.speech_formats import response_formats
from tests.server.auth.test_tls import make_pair, needs_openssl
from tests.server.hosting import DEADLINE_S, hosted
from tests.streaming.engine.fake import FakeRunner, audio_of

FAST = Pace(prompt_s=0, tokens_per_second=20_000, pause_every=10**9)
SLOW = Pace(prompt_s=0, tokens_per_second=300, pause_every=10**9)
TOKENS = np.arange(200, 320, 2, dtype=np.uint16)
PCM = np.round(audio_of(TOKENS) * 32_768).astype(np.int16)
ASKED = {"model": "nutts", "voice": "default", "input": "Good morning."}


def http(url):
    return url.replace("ws://", "http://")


@asynccontextmanager
async def speaking(pace=FAST, tokens=TOKENS, **settings):
    async with stand_in(tokens, pace) as model:
        with hosted(FakeRunner(), speech_lm_url=model.url, **settings) as host:
            yield model, http(host.url) + "/v1", host


@asynccontextmanager
async def by_openai(**settings):
    async with (
        speaking(**settings) as (model, url, _),
        openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client,
    ):
        yield model, client


async def test_the_openai_client_streams_sample_exact_pcm():
    async with by_openai() as (model, client):
        for _ in range(2):
            parts = []
            async with client.audio.speech.with_streaming_response.create(**ASKED, response_format="pcm") as response:
                assert response.headers["content-type"] == "audio/pcm"
                async for part in response.iter_bytes():
                    parts.append(part)
            assert np.array_equal(np.frombuffer(b"".join(parts), np.int16), PCM)
    assert (model.requests[0]["prompt"], model.requests[0]["model"]) == ("Good morning.", "nutts")


async def test_wav_is_the_default_and_can_be_read():
    async with by_openai() as (_, client):
        response = await client.audio.speech.create(**ASKED)
    audio, rate = soundfile.read(io.BytesIO(response.content), dtype="int16")
    assert rate == 24_000 and np.array_equal(audio, PCM)


@pytest.mark.skipif("opus" not in response_formats(), reason="libsndfile without Opus")
async def test_opus_has_the_length_of_the_audio():
    async with by_openai() as (_, client):
        response = await client.audio.speech.create(**ASKED, response_format="opus")
    audio, rate = soundfile.read(io.BytesIO(response.content), dtype="float32")
    assert rate == 24_000 and audio.size == PCM.size


async def test_server_sent_events_have_the_openai_format():
    sse = {"response_format": "pcm", "stream_format": "sse"}
    async with (
        by_openai() as (_, client),
        client.audio.speech.with_streaming_response.create(**ASKED, **sse) as response,
    ):
        lines = [line async for line in response.iter_lines() if line]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    audio = b"".join(base64.b64decode(event["audio"]) for event in events[:-1])
    assert np.array_equal(np.frombuffer(audio, np.int16), PCM)
    assert {event["type"] for event in events[:-1]} == {"speech.audio.delta"}
    assert events[-1]["type"] == "speech.audio.done" and events[-1]["usage"]["output_tokens"] == TOKENS.size


async def test_chat_and_a_template_are_settings(tmp_path):
    (tmp_path / "prompt.txt").write_text("say: {text}")
    settings = {"speech_lm_api": "chat", "speech_lm_template": str(tmp_path / "prompt.txt")}
    async with by_openai(**settings) as (model, client):
        await client.audio.speech.create(**ASKED)
    assert model.requests[0]["messages"] == [{"role": "user", "content": "say: Good morning."}]


async def test_an_unknown_voice_is_400_and_lists_the_voices():
    async with by_openai() as (_, client):
        with pytest.raises(openai.BadRequestError, match="'alloy' is unknown: choose one of default") as refused:
            await client.audio.speech.create(**{**ASKED, "voice": "alloy"})
    assert refused.value.type == "invalid_request_error" and refused.value.code == "bad_config"


async def test_speech_starts_from_a_voice_of_the_server(tmp_path):
    np.save(tmp_path / "anna.npy", np.arange(100, dtype=np.uint16))
    async with speaking() as (model, _, _):
        with hosted(speech_lm_url=model.url, voices=str(tmp_path), batch_sizes=(1,), workers=1) as host:
            async with openai.AsyncOpenAI(base_url=http(host.url) + "/v1", api_key="any", max_retries=0) as client:
                heard = []
                for voice in ("default", "anna", "anna"):
                    asked = ASKED | {"voice": voice, "response_format": "pcm"}
                    heard.append((await client.audio.speech.create(**asked)).content)
                with pytest.raises(openai.BadRequestError, match="choose one of default, anna"):
                    await client.audio.speech.create(**{**ASKED, "voice": "alloy"})
    assert len(heard[0]) == len(heard[1]) == PCM.nbytes and heard[0] != heard[1] == heard[2]


async def test_a_local_language_model_is_reached_beside_a_proxy(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with speaking() as (_, url, _host), httpx.AsyncClient(trust_env=False) as client:
        response = await client.post(f"{url}/audio/speech", json=ASKED | {"response_format": "pcm"})
    assert np.array_equal(np.frombuffer(response.content, np.int16), PCM)


async def test_a_language_model_behind_a_socks_proxy_needs_the_extra(monkeypatch):
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "socksio", None)
    needs = pytest.raises(ConfigError, match=r"install the extra 'socks'")
    with needs, hosted(FakeRunner(), speech_lm_url="http://codec.invalid/v1"):
        pass


async def test_speech_without_a_language_model_is_404():
    with hosted(FakeRunner()) as host:
        async with openai.AsyncOpenAI(base_url=http(host.url) + "/v1", api_key="any", max_retries=0) as client:
            with pytest.raises(openai.NotFoundError, match="--speech-lm-url"):
                await client.audio.speech.create(**ASKED)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "elsewhere"])
async def test_an_unusable_language_model_is_502(url):
    async with speaking() as (_, _url, other):
        wrong = url if url != "elsewhere" else http(other.url) + "/v1"  # this address has no completions
        with hosted(FakeRunner(), speech_lm_url=wrong) as host:
            async with openai.AsyncOpenAI(base_url=http(host.url) + "/v1", api_key="any", max_retries=0) as client:
                with pytest.raises(openai.InternalServerError) as failed:
                    await client.audio.speech.create(**ASKED)
            assert failed.value.status_code == 502 and failed.value.code == "speech_lm"
            await host.emptied()


async def test_an_unexpected_failure_of_the_relay_is_500_and_frees_the_slot(monkeypatch):
    monkeypatch.setattr("neucodec_streaming.server.http.speech.AnswerParser", None)
    async with speaking() as (_, url, host):
        async with httpx.AsyncClient(timeout=DEADLINE_S) as client:
            refused = await client.post(f"{url}/audio/speech", json=ASKED)
        assert refused.status_code == 500 and refused.json()["error"]["code"] == "internal"
        await host.emptied()


async def test_speech_without_a_free_slot_is_503_with_retry_after():
    async with speaking(max_sessions=1) as (_, url, host):
        async with connect(host.url, kind="decode"), httpx.AsyncClient() as client:
            refused = await client.post(f"{url}/audio/speech", json=ASKED)
            assert refused.status_code == 503 and int(refused.headers["Retry-After"]) >= 1
            assert refused.json()["error"]["code"] == "full"
        await host.emptied()


async def test_a_streaming_answer_holds_its_slot_until_the_client_disconnects():
    async with speaking(pace=SLOW, tokens=np.arange(0, 6000, 2, dtype=np.uint16), max_sessions=1) as (_, url, host):
        async with httpx.AsyncClient() as client, client.stream("POST", f"{url}/audio/speech", json=ASKED) as response:
            pieces = (
                response.aiter_raw()
            )  # the variable keeps the generator alive: httpx closes the connection of one that is collected
            await anext(pieces)
            refused = await client.post(f"{url}/audio/speech", json=ASKED)
            assert refused.status_code == 503 and refused.json()["error"]["code"] == "full"
            await anext(pieces)
        await host.emptied()


async def test_speech_requires_a_key_as_sessions_do(tmp_path):
    key, path = new_key(), tmp_path / "keys"
    path.write_text(key_line("alice", key) + "\n")
    async with speaking(api_keys_file=str(path)) as (_, url, _host):
        async with openai.AsyncOpenAI(base_url=url, api_key="wrong", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError):
                await client.audio.speech.create(**ASKED)
        async with openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as client:
            await client.audio.speech.create(**ASKED)


async def test_a_disconnect_closes_the_language_model_within_100_ms():
    loop = asyncio.get_running_loop()
    async with speaking(pace=SLOW, tokens=np.arange(0, 6000, 2, dtype=np.uint16)) as (model, url, host):
        async with httpx.AsyncClient() as client, client.stream("POST", f"{url}/audio/speech", json=ASKED) as response:
            pieces = response.aiter_raw()
            await anext(pieces)
            left_s = loop.time()
        await asyncio.wait_for(model.cut_off.wait(), DEADLINE_S)
        assert model.cut_off_s - left_s < 0.1
        await host.emptied()


@pytest.mark.slow
async def test_a_client_that_does_not_read_causes_back_pressure():
    story = np.resize(TOKENS, 20_000)
    small = {"max_read_ahead_bytes": 1_000, "max_pending_seconds": 1.0, "max_queue_bytes": 10_000}
    asked = {**ASKED, "response_format": "pcm"}
    async with speaking(tokens=story, **small) as (_, url, host):
        async with httpx.AsyncClient() as client, client.stream("POST", f"{url}/audio/speech", json=asked) as response:
            pieces = response.aiter_raw()
            heard = [await anext(pieces)]
            (session,) = host.app.registry._all(lambda entry: True)
            async with asyncio.timeout(DEADLINE_S):
                while not session.slot._is_paused or session.slot.backlog.bytes <= 1_000:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)  # until the socket buffers are full
            await asyncio.sleep(0.3)
            assert session.queued_bytes < 10_000 + 100 * 960 and session.slot.backlog.bytes < 10_000
            heard += [piece async for piece in pieces]
        await host.emptied()
    assert len(b"".join(heard)) == story.size * 960


@needs_openssl
async def test_speech_is_served_over_tls(tmp_path):
    cert, key = make_pair(tmp_path, "speech")
    async with speaking(tls_cert=str(cert), tls_key=str(key)) as (_, _url, host):
        url = host.url.replace("wss://127.0.0.1", "https://localhost")
        async with (
            httpx.AsyncClient(verify=ssl.create_default_context(cafile=str(cert))) as client,
            openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, http_client=client) as speaker,
        ):
            response = await speaker.audio.speech.create(**ASKED, response_format="pcm")
    assert np.array_equal(np.frombuffer(response.content, np.int16), PCM)


async def test_a_failure_after_the_first_audio_aborts_the_response():
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        chunk = json.dumps({"choices": [{"text": "<|speech_2|>" * 20}]})
        writer.write(f"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\ndata: {chunk}\n\n".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        with hosted(FakeRunner(), speech_lm_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1") as host:
            async with httpx.AsyncClient() as client:
                heard = b""
                with pytest.raises(httpx.RemoteProtocolError):
                    async with client.stream(
                        "POST", f"{http(host.url)}/v1/audio/speech", json={**ASKED, "response_format": "pcm"}
                    ) as response:
                        async for part in response.aiter_raw():
                            heard += part
                assert len(heard) == 20 * 960


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"nonsense", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"[" * 100_000, "not JSON"),
        (rb'{"input": "a \ud83d"}', r"input is 'a \\ud83d', which is not Unicode"),
        (rb'{"input": "a", "model": "\udc00"}', r"model is '\\udc00', which is not Unicode"),
        (b'{"input": " "}', "input is ' '"),
        (b'{"input": 3}', "input is '3'"),
        (b'{"input": "a", "voice": {"id": "x"}}', "voice .* is unknown"),
        (b'{"input": "a", "response_format": "mp3"}', "response_format 'mp3'"),
        (b'{"input": "a", "stream_format": "x"}', "stream_format 'x'"),
        (b'{"input": "a", "speed": 2}', "speed is 2"),
        (b'{"input": "a", "model": 3}', "model is '3'"),
    ],
)
def test_invalid_fields_are_named(body, says):
    with pytest.raises(ConfigError, match=says):
        parse_request(body)


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("POST", "/", 405, "GET"),
        ("PUT", "/v1/encode", 405, "GET"),
        ("DELETE", "/v1/audio/speech", 405, "POST"),
        ("GET", "/v1/audio/speech", 405, "POST"),
        ("POST", "/nothing", 404, None),
        ("OPTIONS", "/healthz", 405, "GET"),
    ],
)
async def test_other_methods_get_a_status_and_json(method, path, status, allow):
    with hosted(FakeRunner()) as host:
        async with httpx.AsyncClient(base_url=http(host.url)) as client:
            response = await client.request(method, path, content=b"{}" if method == "POST" else None)
    assert (response.status_code, response.headers.get("Allow")) == (status, allow)
    assert response.json()["type"] == "error"


async def exchanged(url, *parts):
    """Receives up to the end of the connection."""
    host, port = url.removeprefix("ws://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        return await asyncio.wait_for(reader.read(), DEADLINE_S)
    finally:
        writer.close()


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/metrics", "/v1/nothing", "/v1/audio/speech"])
async def test_an_answer_to_head_has_the_length_of_the_body_and_no_body(path):
    with hosted(FakeRunner()) as host:
        said = await exchanged(host.url, f"HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 ") and b"\r\ncontent-length: " in head.lower() and body == b""


@pytest.mark.parametrize("length", [b"Content-Length: 20000000", b"Transfer-Encoding: chunked"])
async def test_a_client_that_sends_too_much_reads_the_answer(length):
    with hosted(FakeRunner(), max_message_bytes=1000) as host:
        head = b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n\r\n"
        piece = b"x" * 100_000 if b"Content" in length else b"186a0\r\n" + b"x" * 100_000 + b"\r\n"
        said = await exchanged(host.url, head, *[piece] * 200)
        assert b" 413 " in said.splitlines()[0] and b"longer than 1000 bytes" in said


async def test_a_client_that_never_ends_its_refused_body_is_cut_off():
    with hosted(FakeRunner(), max_message_bytes=1000, close_timeout_s=0.2) as host:
        address, port = host.url.removeprefix("ws://").split(":")
        reader, writer = await asyncio.open_connection(address, int(port))
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + b"x" * 2000)
        assert b" 413 " in await asyncio.wait_for(reader.read(), DEADLINE_S)
        with pytest.raises(OSError):
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.05)


async def test_malformed_requests_get_the_matching_status():
    with hosted(FakeRunner(), max_message_bytes=1000, open_timeout_s=0.3) as host:
        assert b" 400 " in (await exchanged(host.url, b"POST nonsense\r\n\r\n")).splitlines()[0]
        head = b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n"
        assert b" 413 " in (await exchanged(host.url, head, b"x" * 5000)).splitlines()[0]
        whole = b"POST /nothing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
        cut = [whole[i : i + 1] for i in range(len(whole))]
        assert b" 404 " in (await exchanged(host.url, *cut)).splitlines()[0]
        assert await exchanged(host.url, head[:30]) == b""
