"""`transformers serve` with a tiny random speech language model, and a session with the golden codec."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from demos.tiny_speech_lm import save
from neucodec_streaming.client.connection import connect
from neucodec_streaming.client.speech_lm import SpeechLM, SpeechReport, TextToSpeech, read_spec
from neucodec_streaming.errors import SpeechLMError
from tests.server.hosting import hosted

MAX_TOKENS = 60
START_S = 240.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save(folder)
    return folder


@pytest.fixture(scope="module")
def url(folder, tmp_path_factory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    command += ["--port", str(port), "--device", "cpu", "--dtype", "float32"]
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        deadline_s = time.monotonic() + START_S
        while True:
            assert process.poll() is None and time.monotonic() < deadline_s, log.read_text()
            try:
                httpx.get(f"http://127.0.0.1:{port}/health").raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.slow
@pytest.mark.parametrize("api", ["completions", "chat"])
async def test_tokens_of_transformers_serve_are_decoded_sample_for_sample(url, folder, api, tmp_path):
    asked = {"messages": [{"role": "user", "content": "{text}"}]} if api == "chat" else {"prompt": "{text}"}
    template = tmp_path / "template.json"
    template.write_text(json.dumps({**asked, "max_tokens": MAX_TOKENS, "seed": 1}))
    spec = read_spec(url, api=api, template=str(template), tag=None)
    report = SpeechReport()
    with hosted(batch_sizes=(1,), profiles={"default": None}) as server:
        async with SpeechLM(spec, model=str(folder)) as model, connect(server.url, kind="decode") as connection:
            parts = [part async for part in TextToSpeech(model, connection).say("Good morning.", report)]
    assert MAX_TOKENS // 2 < report.tokens <= MAX_TOKENS  # one in 250 of what it prints is a letter or a mark
    assert report.samples == sum(part.size for part in parts) == report.tokens * 480
    assert np.isfinite(np.concatenate(parts)).all()


@pytest.mark.slow
async def test_the_servers_refusal_is_quoted(url, folder, tmp_path):
    (tmp_path / "template.json").write_text('{"prompt": "{text}", "skip_special_tokens": false}')
    spec = read_spec(url, api="completions", template=str(tmp_path / "template.json"), tag=None)
    async with SpeechLM(spec, model=str(folder)) as model:
        with pytest.raises(SpeechLMError, match=r"422.*skip_special_tokens"):
            async with model.answer("Hello."):
                pass
