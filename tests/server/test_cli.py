"""The command, run as a process."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from neucodec_streaming.engine.engine import Engine
from neucodec_streaming.server.cli import main, serve
from neucodec_streaming.server.model import Model
from neucodec_streaming.server.settings.fields import Settings
from tests.server.hosting import DEADLINE_S, GOLDEN, s16, talk
from tests.streaming.engine.fake import CONFIG, FakeRunner, speech

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-m", "neucodec_streaming.server", "--port", "0", "--threads", "1"]
SMALL = ["--batch-sizes", "1", "--profiles", "default", "--max-sessions", "2", "--drain-s", "0.1"]


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)


async def converse(url: str, stop) -> None:
    """Leaves a second session open when the server stops."""
    async with talk(url, "/v1/encode") as client:
        await client.send(s16(speech(*range(12))))
        assert (await client.finish()).output == 12
    async with talk(url, "/v1/encode") as client:
        stop()
        await client.socket.wait_closed()
        assert client.socket.close_code == 1012


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_the_server_even_while_the_model_loads(stop):
    def load(settings: Settings) -> tuple[list[Engine], Model]:
        os.kill(os.getpid(), stop)
        return [Engine(FakeRunner())], Model("fake", {"default": CONFIG}, "default")

    assert await asyncio.wait_for(serve(Settings(port=0), load, apart=False), DEADLINE_S) == 0


@pytest.mark.slow
def test_the_command_prints_its_address_serves_and_stops_cleanly():
    process = subprocess.Popen(
        [*COMMAND, "--model", str(GOLDEN), *SMALL], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("neucodec-server ready at ws://127.0.0.1:") and "neucodec-mini" in line
        asyncio.run(converse(line.split()[3], lambda: process.send_signal(signal.SIGTERM)))
        assert process.wait(20) == 0
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["--batch-sizes", "4,x"], 2, "4,x"),
        (["--profiles", "best"], 2, "best"),
        (["--max-sessions", "0"], 2, "max_sessions"),
        (["--host", "192.0.2.1"], 2, "192.0.2.1"),
        (["--config", "/nowhere/server.toml"], 2, "/nowhere/server.toml"),
        (["--check-config", "--tls-cert", "/nowhere/cert.pem"], 2, "tls_key"),
        (["--check-config", "--api-keys-file", "/nowhere/keys"], 2, "/nowhere/keys"),
        (["--check-config", "--max-session", "3"], 2, "--max-session"),
    ],
)
def test_an_invalid_setting_exits_with_code_2_and_a_one_line_message(arguments, code, named):
    result = run(*arguments)
    assert result.returncode == code and named in result.stderr and "Traceback" not in result.stderr
    assert not result.stdout


def test_check_config_prints_the_effective_settings_and_starts_nothing(capsys, monkeypatch, tmp_path):
    file = tmp_path / "server.toml"
    file.write_text("max_sessions = 3")
    monkeypatch.setenv("NEUCODEC_CONFIG", str(file))
    monkeypatch.setenv("NEUCODEC_PORT", "1234")
    monkeypatch.setenv("NEUCODEC_API_KEYS", "s3cret-of-twenty-two-characters")
    assert main(["--check-config", "--log-format", "json"]) == 0
    said = capsys.readouterr().out
    for line in ("max_sessions = 3 # file", "port = 1234 # environment", 'log_format = "json" # flag'):
        assert line in [" ".join(row.split()) for row in said.splitlines()]
    assert "s3cret" not in said


def test_check_config_refuses_settings_that_prevent_a_start(capsys, monkeypatch, tmp_path):
    file = tmp_path / "keys"
    file.write_text("alice: no hash")
    assert main(["--check-config", "--api-keys-file", str(file)]) == 2
    assert "line 1" in capsys.readouterr().err
    monkeypatch.setenv("NEUCODEC_API_KEYS", "short")
    assert main(["--check-config"]) == 2
    said = capsys.readouterr()
    assert "22" in said.err and "short" not in said.err.split() and not said.out


@pytest.fixture
def started(monkeypatch):
    found: list[Settings] = []

    async def serve(settings: Settings) -> int:
        found.append(settings)
        return 0

    monkeypatch.setattr("neucodec_streaming.server.cli.serve", serve)
    return found


def test_client_environment_variables_never_prevent_a_start(started, caplog, monkeypatch):
    monkeypatch.setenv("NEUCODEC_API_KEY", "s3cret-of-twenty-two-characters")
    monkeypatch.setenv("NEUCODEC_SERVER", "wss://codec.example")
    monkeypatch.setenv("NEUCODEC_MQTT_USERNAME", "alice")
    monkeypatch.setenv("NEUCODEC_MQTT_PASSWORD", "s3cret")
    for url in ("mqtt://alice:s3cret@broker.example", "http://broker.example", "nonsense", ""):
        monkeypatch.setenv("NEUCODEC_MQTT", url)
        assert main([]) == 0
        assert started.pop().mqtt is None
        assert "s3cret" not in caplog.text and ("ignoring NEUCODEC_MQTT" in caplog.text) == bool(url)
        caplog.clear()
    monkeypatch.setenv("NEUCODEC_MQTT", "mqtt://broker.example")
    assert main([]) == 0
    assert started.pop().mqtt == "mqtt://broker.example"
    assert main(["--mqtt", "nonsense"]) == 0, "which serve() refuses: it was meant for the server"
    assert started.pop().mqtt == "nonsense"


def test_unknown_variables_cause_a_warning_and_fail_check_config(started, capsys, caplog, monkeypatch):
    monkeypatch.setenv("NEUCODEC_MAX_SESSION", "3")
    assert main([]) == 0
    assert "NEUCODEC_MAX_SESSION, which is not a setting: did you mean NEUCODEC_MAX_SESSIONS" in caplog.text
    assert main(["--check-config"]) == 2
    assert "NEUCODEC_MAX_SESSION," in capsys.readouterr().err


@pytest.mark.slow
def test_a_missing_stream_json_exits_with_code_3_and_is_named():
    result = run("--stream-json", "/nowhere/stream.json")
    assert result.returncode == 3 and "/nowhere/stream.json" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.slow
def test_a_missing_model_exits_with_code_3_and_is_named():
    result = run("--model", "/nowhere/model")
    assert result.returncode == 3 and "/nowhere/model" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize("arguments", [["--check-config"], ["--help"], ["encode-files", "--help"]])
def test_a_closed_pipe_during_a_listing_is_not_an_error(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run([*COMMAND[:3], *arguments], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (result.returncode, result.stderr) == (0, "")


def test_errors_and_help_show_settings_as_users_write_them(capsys):
    assert main(["--kinds", "foo,bar"]) == 2
    assert "kinds is 'foo,bar': choose encode, decode, or both" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert "--max-messages-per-s N" in shown and "--idle-timeout-s SECONDS" in shown


def test_a_template_that_the_server_cannot_fill_is_refused_at_the_start(capsys, tmp_path):
    template = tmp_path / "prompt.txt"
    template.write_text("user: {text} assistant: {codes}")
    assert main(["--speech-lm-url", "http://127.0.0.1:1/v1", "--speech-lm-template", str(template)]) == 2
    assert "has {codes}, which the server cannot fill" in capsys.readouterr().err


def test_a_missing_template_is_named_without_an_errno(capsys):
    options = ["--speech-lm-url", "http://127.0.0.1:1/v1", "--speech-lm-template", "/nowhere/template"]
    assert main(options) == 2
    said = capsys.readouterr().err
    assert "'/nowhere/template'" in said and "No such file" in said and "Errno" not in said
