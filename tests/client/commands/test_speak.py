"""`neucodec speak` between the stand-in language model and the fake server."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from demos.language_model import Pace
from demos.speech_lm_server import stand_in
from neucodec_streaming.client.cli import main
from tests.client import fake_sounddevice
from tests.client.fake_server import fake_server
from tests.client.test_cli import HandDriven

FAST = Pace(prompt_s=0, tokens_per_second=20_000, pause_every=10**9)
TOKENS = np.arange(23, dtype=np.uint16)


async def run(*arguments) -> int:
    return await asyncio.to_thread(main, [str(argument) for argument in arguments])


async def test_an_argument_becomes_a_wav_file_and_a_summary(tmp_path, capsys):
    async with fake_server() as server, stand_in(TOKENS, FAST) as model:
        where = ["--server", server.url, "--speech-lm-url", model.url]
        assert await run("speak", "Hello.\n\nYou.", "--output", tmp_path / "out.wav", *where) == 0
        assert await run("speak", "Hello.", "--output", tmp_path / "b.wav", *where, "--json") == 0
    assert [request["prompt"] for request in model.requests] == ["Hello.", "You.", "Hello."]
    audio, rate = soundfile.read(tmp_path / "out.wav", dtype="int16")
    assert rate == 24_000
    assert np.array_equal(audio, np.tile(np.repeat(TOKENS, 480), 2))
    *shown, as_json = capsys.readouterr().out.splitlines()
    assert any(line.startswith("first audio after token") for line in shown)
    assert any(line.startswith("written") and line.endswith("out.wav") for line in shown)
    figures = json.loads(as_json)
    assert (figures["texts"], figures["tokens"], figures["seconds"]) == (1, 23, 0.46)
    assert 0 < figures["first_token_ms"][0] < figures["first_audio_ms"][0]


async def test_progress_of_each_text_is_shown_on_a_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    async with fake_server() as server, stand_in(TOKENS, FAST) as model:
        where = ["--server", server.url, "--speech-lm-url", model.url, "--output", tmp_path / "out.wav"]
        assert await run("speak", "One.\nTwo.", *where) == 0
    shown = capsys.readouterr().err
    assert "One." in shown and "Two." in shown
    assert shown.count("23 tokens, 0.5 s") >= 2


async def test_a_nano_server_causes_one_warning(tmp_path, capsys):
    async with fake_server() as server, stand_in(TOKENS, FAST) as model:
        server.model = "nano-2"
        where = ["--server", server.url, "--speech-lm-url", model.url, "--output", tmp_path / "out.wav"]
        assert await run("speak", "One.\nTwo.", *where) == 0
        assert capsys.readouterr().err.count("nano, which has tokens of its own") == 1
        assert await run("speak", "One.", *where, "--json") == 0
    assert "of its own" in json.loads(capsys.readouterr().out)["notes"][0]


@pytest.mark.parametrize(("count", "voice"), [(99, None), (900, None), (100, "anna")])
async def test_the_session_is_primed_with_the_voice_of_the_reference(tmp_path, count, voice):
    np.arange(count, dtype="<u2").tofile(tmp_path / "in.tok")
    async with fake_server() as server, stand_in(TOKENS, FAST) as model:
        where = ["--server", server.url, "--speech-lm-url", model.url, "--output", tmp_path / "out.wav"]
        where += ["--voice", voice] if voice else []
        assert await run("speak", "One.", "--reference", tmp_path / "in.tok", *where) == 0
        assert np.array_equal(soundfile.read(tmp_path / "out.wav", dtype="int16")[0], np.repeat(TOKENS, 480))
    expected = [tuple(range(150, 900))] if count == 900 else []
    assert [message.tokens for message in server.primes] == expected


async def test_a_file_and_a_pipe_are_spoken_line_by_line_and_audio_goes_to_a_pipe(tmp_path, monkeypatch, capsys):
    (tmp_path / "text").write_text("One.\n\nTwo.\n")
    source, sink = os.pipe()
    os.write(sink, "Drei Ä.\nVier".encode())
    os.close(sink)
    async with fake_server() as server, stand_in(TOKENS, FAST) as model:
        where = ["--server", server.url, "--speech-lm-url", model.url, "--speech-lm-api", "chat", "--format", "raw"]
        with (tmp_path / "heard").open("wb") as heard, os.fdopen(source, "rb") as pipe:
            where += ["--output", f"/dev/fd/{heard.fileno()}"]
            assert await run("speak", "--file", tmp_path / "text", *where) == 0
            monkeypatch.setattr("neucodec_streaming.client.commands.terminal.PIPE", f"/dev/fd/{pipe.fileno()}")
            assert await run("speak", "-", *where) == 0
    said = [request["messages"][0]["content"] for request in model.requests]
    assert said == ["One.", "Two.", "Drei Ä.", "Vier"]
    assert np.array_equal(np.fromfile(tmp_path / "heard", "<i2"), np.tile(np.repeat(TOKENS, 480), 4))
    assert "46" in capsys.readouterr().out


async def test_ctrl_c_reports_what_was_spoken_and_that_no_file_is_left(tmp_path):
    slow = Pace(prompt_s=0, tokens_per_second=100, pause_every=10**9)
    async with fake_server() as server, stand_in(np.zeros(6000, np.uint16), slow) as model:
        options = ["--output", "out.wav", "--server", server.url, "--speech-lm-url", model.url]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "neucodec_streaming.client", "speak", "Hello.", *options, cwd=tmp_path, stderr=-1
        )
        async with asyncio.timeout(30):
            while not model.moments:  # noqa: ASYNC110 (the stand-in has no event for its first token)
                await asyncio.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, said = await process.communicate()
    assert process.returncode == 130 and not list(tmp_path.iterdir())
    assert re.fullmatch(r"neucodec: interrupted after \d\.\d s of audio: out.wav was not written\n", said.decode())


async def test_the_speaker_plays_all_of_it(monkeypatch, capsys):
    monkeypatch.setattr(fake_sounddevice, "OutputStream", HandDriven)
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice)
    monkeypatch.setattr(HandDriven, "heard", [])
    async with fake_server() as server, stand_in(TOKENS + 9_000, FAST) as model:
        assert await run("speak", "Hello.", "--server", server.url, "--speech-lm-url", model.url, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["speaker"], figures["device_underruns"]) == ("Fake Speaker", 0)
    played = np.concatenate(HandDriven.heard)
    assert np.count_nonzero(played > 0.2) >= TOKENS.size * 960 * 0.95


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--speech-lm-url", "http://127.0.0.1:1/v1"], 4, "is it running"),
        (["--speech-lm-url", "http://127.0.0.1:1"], 2, "language model URL"),
        (["--speech-lm-template", "/nothing"], 3, "/nothing cannot be read"),
        (["--tag", "speech"], 2, "tag 'speech'"),
        (["--reference", "/nothing.tok"], 3, "/nothing.tok cannot be read"),
    ],
)
async def test_invalid_options_have_an_exit_code(options, code, says, tmp_path, capsys):
    async with fake_server() as server:
        where = ["--server", server.url, "--output", tmp_path / "out.wav"]
        assert await run("speak", "Hello.", *where, *options) == code
    assert says in capsys.readouterr().err


def test_without_httpx_the_command_names_the_extra():
    code = (
        "import sys\nsys.modules['httpx'] = None\n"
        "from neucodec_streaming.client.cli import main\nsys.exit(main(['speak', 'Hi.']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    remedy = "install the extra 'speak' (in the checkout: pip install '.[speak]')"
    assert done.stderr == f"neucodec: neucodec speak needs httpx: {remedy}\n"
