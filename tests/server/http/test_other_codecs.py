"""POST /v1/compare: speech by the codecs that are installed, its limits, and codecs that fail."""

import asyncio
import base64
import os
import stat
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from neucodec_streaming.audio import pcm_to_bytes
from neucodec_streaming.server.http import other_codecs
from neucodec_streaming.server.http.other_codecs import CODECS, MAX_WAITING
from tests.server.hosting import hosted
from tests.streaming.engine.fake import FakeRunner

KEY = "correct-horse-battery-staple"
SPEECH = pcm_to_bytes(np.sin(np.arange(16_000) / 20).astype(np.float32) / 2, "mulaw")
COMMANDS = [command[0] for codec in CODECS.values() for command in (codec.encoder, codec.decoder)]


@pytest.fixture
def tools(tmp_path, monkeypatch) -> Path:
    """The only folder of commands, besides the shell's own."""
    (tmp_path / "sh").symlink_to("/bin/sh")
    (tmp_path / "cat").symlink_to("/bin/cat")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def install(folder: Path, name: str, script: str = "exec cat") -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(stat.S_IRWXU)


async def post(host, body: bytes = SPEECH, key: str | None = None) -> httpx.Response:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(timeout=20) as client:
        return await client.post(host.url.replace("ws://", "http://") + "/v1/compare", content=body, headers=headers)


def offered(host) -> list[str]:
    return httpx.get(host.url.replace("ws://", "http://") + "/readyz").json()["compare"]


async def test_without_the_commands_no_codec_is_offered(tools):
    with hosted(FakeRunner()) as host:
        assert offered(host) == []
        answer = await post(host)
    assert (answer.status_code, answer.json()["audio"]) == (200, {})


async def test_a_codec_is_offered_if_both_commands_are_installed_and_passes_audio_as_bytes(tools):
    for name in ("opusdec", "c2enc", "c2dec"):
        install(tools, name)
    with hosted(FakeRunner()) as host:
        assert offered(host) == ["codec2"]
        answer = (await post(host)).json()
    (audio,) = (np.frombuffer(base64.b64decode(each), "<i2") for each in answer["audio"].values())
    assert (answer["rate"], audio.size) == (8000, 8000)
    assert np.abs(audio[1000:7000]).max() == pytest.approx(16_384, rel=0.05)


@pytest.mark.parametrize(
    "script",
    ["exit 3", "cat >/dev/null; exit 1", "exec cat >/dev/null", "while :; do :; done"],
    ids=["fails", "reads and fails", "writes nothing", "hangs"],
)
async def test_a_codec_that_fails_is_left_out_and_its_process_ends(tools, monkeypatch, script):
    monkeypatch.setattr(other_codecs, "DEADLINE_S", 1.0)
    for name in COMMANDS:
        install(tools, name)
    install(tools, "opusenc", f"echo $$ > {tools}/pid; {script}")
    with hosted(FakeRunner()) as host:
        answer = (await post(host)).json()
    assert list(answer["audio"]) == ["codec2"]
    with pytest.raises(ProcessLookupError):
        os.kill(int((tools / "pid").read_text()), 0)


async def test_the_body_is_limited_and_a_key_is_required(tools):
    with hosted(FakeRunner(), api_keys=(KEY,), max_message_bytes=300_000) as host:
        assert (await post(host)).status_code == 401
        assert (await post(host, b"", KEY)).status_code == 400
        assert "at most 15 s" in (await post(host, bytes(15 * 16_000 + 1), KEY)).json()["message"]
        assert (await post(host, bytes(300_001), KEY)).status_code == 413
        assert (await post(host, bytes(15 * 16_000), KEY)).status_code == 200


async def test_rates_and_waiting_requests_are_limited_and_the_server_stays_responsive(tools):
    for name in COMMANDS:
        install(tools, name, "sleep 0.2 2>/dev/null; exec cat")
    (tools / "sleep").symlink_to("/bin/sleep")
    with hosted(FakeRunner()) as host:
        posts = [asyncio.create_task(post(host)) for _ in range(MAX_WAITING + 4)]
        await asyncio.sleep(0)
        begin_s = time.monotonic()
        async with httpx.AsyncClient() as client:
            assert (await client.get(host.url.replace("ws://", "http://") + "/healthz")).status_code == 200
        assert time.monotonic() - begin_s < 1
        codes = sorted([answer.status_code for answer in await asyncio.gather(*posts)])
    assert codes == [200] * MAX_WAITING + [503] * 4
    with hosted(FakeRunner(), max_attempts_per_minute=2) as host:
        assert [(await post(host)).status_code for _ in range(3)] == [200, 200, 429]


async def test_a_server_without_the_page_does_not_compare():
    with hosted(FakeRunner(), web=False) as host:
        assert offered(host) == []
        assert (await post(host)).status_code == 404


@pytest.mark.skipif(not all(codec.is_installed for codec in CODECS.values()), reason="needs opus-tools and codec2")
async def test_the_real_codecs_keep_the_alignment_and_are_recognisable():
    envelope = np.repeat([0, 1, 0, 1, 1, 0], 4000)
    voice = np.sign(np.sin(np.arange(24_000) * 2 * np.pi * 120 / 16_000)) * envelope * 0.3
    with hosted(FakeRunner()) as host:
        answer = (await post(host, pcm_to_bytes(voice.astype(np.float32), "mulaw"))).json()
    assert list(answer["audio"]) == ["opus", "codec2"]
    for text in answer["audio"].values():
        heard = np.frombuffer(base64.b64decode(text), "<i2").astype(float)
        loud = np.sqrt((heard.reshape(-1, 400) ** 2).mean(axis=1))
        assert np.corrcoef(loud, envelope[::800])[0, 1] > 0.8
