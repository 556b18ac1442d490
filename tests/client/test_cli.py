"""The command `neucodec`: every subcommand against the fake server, its output and its exit codes."""

import asyncio
import json
import socket
import sys
from typing import ClassVar

import numpy as np
import pytest
import soundfile

from neucodec_streaming.client.cli import main
from neucodec_streaming.client.files import read_record, read_tokens
from tests.client import fake_sounddevice
from tests.client.fake_server import Fault, fake_server
from tests.client.fake_sounddevice import Stream


async def run(*arguments) -> int:
    return await asyncio.to_thread(main, [str(argument) for argument in arguments])


@pytest.fixture
def recording(tmp_path):
    """0.3 s of audio, 15 frames; frame i starts with sample i."""
    audio = np.zeros((15, 320), np.int16)
    audio[:, 0] = np.arange(15)
    soundfile.write(tmp_path / "in.wav", audio.reshape(-1), 16_000)
    return tmp_path / "in.wav"


@pytest.mark.parametrize("name", ["out.tok", "out.npy", "out.npz", "out.txt", "out.json"])
async def test_encode_writes_tokens_and_a_summary(tmp_path, recording, name, capsys):
    async with fake_server() as server:
        assert await run("encode", recording, tmp_path / name, "--server", server.url) == 0
    assert read_tokens(tmp_path / name).tolist() == list(range(15))
    shown = capsys.readouterr().out
    for words in ("0.30 s", "15 (800 bit/s)", "real-time factor", "first output", name):
        assert words in shown


@pytest.mark.parametrize("ending", ["npz", "json", "parquet", "tok"])
async def test_tokens_of_another_weights_version_cause_a_warning(tmp_path, recording, ending, capsys):
    async with fake_server() as server:
        server.model = "nano-1"
        assert await run("encode", recording, tmp_path / f"out.{ending}", "--server", server.url) == 0
        for model, is_noted in (("nano-1", False), ("nano-2", ending != "tok")):
            server.model = model
            capsys.readouterr()
            assert await run("decode", tmp_path / f"out.{ending}", tmp_path / "a.wav", "--server", server.url) == 0
            assert capsys.readouterr().err.count("the tokens are of nano-1, the server's model is nano-2") == is_noted
    record = read_record(tmp_path / f"out.{ending}")
    assert (record.model, record.tokens.tolist()) == ("" if ending == "tok" else "nano-1", list(range(15)))


async def test_json_output_is_one_object(tmp_path, recording, capsys):
    async with fake_server() as server:
        assert await run("encode", recording, tmp_path / "out.tok", "--server", server.url, "--json", "--realtime") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["command"], figures["tokens"], figures["bits_per_second"]) == ("encode", 15, 800)
    assert figures["elapsed_seconds"] >= 0.3
    assert "real_time_factor" not in figures


async def test_decode_and_roundtrip_write_24_khz_wav(tmp_path, recording):
    (tmp_path / "in.tok").write_bytes(np.arange(10, dtype="<u2").tobytes())
    async with fake_server() as server:
        assert await run("decode", tmp_path / "in.tok", tmp_path / "a.wav", "--server", server.url) == 0
        assert await run("roundtrip", recording, tmp_path / "b.wav", "--server", server.url, "--profile", "low") == 0
    for name, frames in (("a.wav", 10), ("b.wav", 15)):
        audio, rate = soundfile.read(tmp_path / name, dtype="int16")
        assert rate == 24_000
        assert np.array_equal(audio, np.repeat(np.arange(frames), 480))


@pytest.mark.parametrize(("model", "noted"), [("nano", True), ("neucodec", False)])
async def test_foreign_tokens_on_nano_cause_one_warning(tmp_path, capsys, model, noted):
    (tmp_path / "in.txt").write_text("<|speech_5|>")
    (tmp_path / "in.tok").write_bytes(b"\x05\x00")
    async with fake_server() as server:
        server.model = model
        assert await run("decode", tmp_path / "in.txt", tmp_path / "out.wav", "--server", server.url) == 0
        assert capsys.readouterr().err.count("nano, which has tokens of its own") == noted
        assert await run("decode", tmp_path / "in.txt", tmp_path / "out.wav", "--server", server.url, "--json") == 0
        assert ("notes" in json.loads(capsys.readouterr().out)) == noted
        assert await run("decode", tmp_path / "in.tok", tmp_path / "out.wav", "--server", server.url) == 0
        assert capsys.readouterr().err == ""


async def test_input_is_never_overwritten(tmp_path, recording, capsys):
    (tmp_path / "link.wav").symlink_to(recording)
    before = recording.read_bytes()
    for output in (recording, tmp_path / "link.wav"):
        assert await run("roundtrip", recording, output, "--server", unused_url()) == 2
        assert "is the same file as the input" in capsys.readouterr().err
    assert recording.read_bytes() == before


async def test_a_missing_key_is_reported_in_terms_of_the_command(tmp_path, recording, capsys, monkeypatch):
    monkeypatch.delenv("NEUCODEC_API_KEY", raising=False)
    async with fake_server(Fault.NEEDS_KEY) as server:
        assert await run("encode", recording, tmp_path / "out.tok", "--server", server.url) == 7
    said = capsys.readouterr().err
    assert said == f"neucodec: {server.url} asks for an API key: set NEUCODEC_API_KEY or give --key-file\n"


def unused_url() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"ws://127.0.0.1:{free.getsockname()[1]}"


async def test_without_a_server_the_old_output_is_kept_and_the_remedy_named(tmp_path, recording, capsys):
    (tmp_path / "out.tok").write_bytes(b"old")
    assert await run("encode", recording, tmp_path / "out.tok", "--server", unused_url()) == 4
    assert "start it with `neucodec-server --model nano`" in capsys.readouterr().err
    assert (tmp_path / "out.tok").read_bytes() == b"old"


async def test_refused_access_has_a_message_and_an_exit_code(tmp_path, recording, capsys):
    for fault, code in ((Fault.PROXY_LOGIN, 7), (Fault.PROXY_LIMIT, 8)):
        async with fake_server(fault) as server:
            assert await run("encode", recording, tmp_path / "out.tok", "--server", server.url) == code
        assert capsys.readouterr().err.startswith("neucodec: ")


async def test_the_key_comes_from_the_environment_or_a_file(tmp_path, recording, monkeypatch):
    monkeypatch.setenv("NEUCODEC_API_KEY", "of-the-environment")
    (tmp_path / "key").write_text("of-the-file\n")
    async with fake_server() as server:
        common = ["encode", recording, tmp_path / "out.tok", "--server", server.url]
        assert await run(*common) == 0
        assert await run(*common, "--key-file", tmp_path / "key") == 0
        sent = [request.headers["Authorization"] for request in server.requests]
    assert sent == ["Bearer of-the-environment", "Bearer of-the-file"]
    assert await run(*common, "--key-file", tmp_path / "nothing") == 3


async def test_json_errors_are_objects_too(tmp_path, recording, capsys):
    async with fake_server(Fault.FULL) as server:
        assert await run("encode", recording, tmp_path / "out.tok", "--server", server.url, "--json") == 4
    error = json.loads(capsys.readouterr().err)
    assert (error["type"], error["code"]) == ("error", "full")
    assert "all 4 sessions" in error["message"]


async def test_a_lost_connection_is_in_the_summary(tmp_path, recording, capsys):
    async with fake_server(resume=True) as server:
        running = asyncio.create_task(
            run("encode", recording, tmp_path / "out.tok", "--server", server.url, "--json", "--realtime")
        )
        await server.asked(1)
        await server.heard.wait()
        server.drop()
        assert await running == 0
    assert json.loads(capsys.readouterr().out)["resumed"] == [{"how": "exact", "gap": 0, "dropped_seconds": 0.0}]
    assert read_tokens(tmp_path / "out.tok").tolist() == list(range(15))


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [(Fault.FULL, 4, "all 4 sessions"), (Fault.VANISH, 5, "connect again"), (Fault.REFUSE_INPUT, 3, "sample 7 is nan")],
)
async def test_server_failures_have_a_message_and_an_exit_code(tmp_path, recording, fault, code, says, capsys):
    async with fake_server(fault) as server:
        assert await run("encode", recording, tmp_path / "out.tok", "--server", server.url) == code
    assert says in capsys.readouterr().err


async def test_unusable_input_has_its_own_exit_code(tmp_path, capsys):
    (tmp_path / "odd.tok").write_bytes(b"abc")
    (tmp_path / "words.txt").write_text("no tokens here")
    for name, says in (
        ("odd.tok", "3 bytes"),
        ("words.txt", "no token such as <|speech"),
        ("missing.tok", "No such file"),
    ):
        assert await run("decode", tmp_path / name, tmp_path / "out.wav", "--server", unused_url()) == 3
        assert says in capsys.readouterr().err
    assert await run("encode", tmp_path / "odd.tok", tmp_path / "out.tok", "--server", unused_url()) == 3
    assert await run("decode", tmp_path / "in.mp3", tmp_path / "out.wav", "--server", unused_url()) == 2


async def test_a_full_disk_has_a_message_and_an_exit_code(tmp_path, recording, capsys):
    async with fake_server() as server:
        for output in ("out.tok", "out.wav"):
            (tmp_path / output).symlink_to("/dev/full")
            command = "encode" if output == "out.tok" else "roundtrip"
            assert await run(command, recording, tmp_path / output, "--server", server.url) == 3
            assert "neucodec: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["encode"], ["sing"], ["mic", "--seconds", "-1"], ["encode", "a", "b", "--form", "x"]]
)
def test_invalid_arguments_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2


@pytest.mark.parametrize("seconds", ["x", "-1", "0", "inf", "nan"])
def test_an_invalid_duration_is_named_in_the_error(seconds, capsys):
    with pytest.raises(SystemExit):
        main(["mic", "--seconds", seconds])
    assert f"--seconds: {seconds!r} is not a positive number of seconds" in capsys.readouterr().err


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith("neucodec ")


class HandDriven(Stream):
    """Delivers one block after the other once it is started."""

    def start(self):
        super().start()
        self.task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self):
        while True:
            if self.channels == 2:
                self.record(np.full((self.blocksize, 2), self.level, np.float32))
            else:
                self.heard.append(self.play())
            await asyncio.sleep(0.001)

    heard: ClassVar[list[np.ndarray]] = []
    level: ClassVar[float] = 0.1

    def close(self):
        super().close()
        self.task.cancel()


@pytest.fixture
def sound(monkeypatch):
    HandDriven.heard = []
    monkeypatch.setattr(fake_sounddevice, "InputStream", HandDriven)
    monkeypatch.setattr(fake_sounddevice, "OutputStream", HandDriven)
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice)
    monkeypatch.setattr("neucodec_streaming.client.commands.sessions.interruption", asyncio.Event)
    monkeypatch.setattr("neucodec_streaming.client.commands.talk.interruption", asyncio.Event)


async def test_mic_writes_tokens_until_its_time_is_over(tmp_path, sound, capsys):
    async with fake_server() as server:
        assert await run("mic", tmp_path / "out.tok", "--seconds", 0.5, "--server", server.url, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["microphone"] == "Fake Mic"
    assert figures["lost_samples"] == 0
    assert "real_time_factor" not in figures
    assert 0.5 <= figures["input_seconds"] < 0.7
    assert read_tokens(tmp_path / "out.tok").size == figures["tokens"]
    assert abs(figures["tokens"] - figures["input_seconds"] * 50) <= 1


@pytest.mark.parametrize("command", ["mic", "talk"])
async def test_a_line_says_when_the_microphone_has_started(command, sound, capsys):
    async with fake_server() as server:
        assert await run(command, "--seconds", 0.3, "--server", server.url) == 0
        shown = capsys.readouterr()
        assert await run(command, "--seconds", 0.3, "--server", server.url, "--json") == 0
    assert shown.err == "recording from 'Fake Mic': press Ctrl-C to stop\n"
    assert "real-time factor" not in shown.out
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", ["mic", "talk"])
async def test_the_time_limit_holds_though_the_server_lost_the_session(command, tmp_path, sound, capsys):
    output = [tmp_path / "out.tok"] if command == "mic" else []
    async with fake_server(resume=True) as server:
        running = asyncio.create_task(run(command, *output, "--seconds", 3, "--server", server.url, "--json"))
        async with asyncio.timeout(20):
            while server.heard_units < 16_000:  # noqa: ASYNC110 (no event counts input)
                await asyncio.sleep(0)
            server.drop()
            server.forget()
            assert await running == 0
    figures = json.loads(capsys.readouterr().out)
    seconds = figures["spoken_seconds" if command == "talk" else "input_seconds"]
    assert "new" in str(figures["resumed"]) and 3 <= seconds < 3.3
    assert figures["tokens"] <= 3.3 * 50
    assert not output or read_tokens(*output).size == figures["tokens"]


async def test_mic_shows_levels_tokens_and_latency_on_a_terminal(sound, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")
    async with fake_server() as server:
        assert await run("mic", "--seconds", 1, "--server", server.url) == 0
    shown = capsys.readouterr().err
    for row in ("level", "tokens", "latency", "microphone", "algorithm 215", "server and network", "sent"):
        assert row in shown


@pytest.mark.parametrize("command", ["mic", "talk"])
async def test_a_silent_microphone_is_reported_once(command, sound, monkeypatch, capsys):
    monkeypatch.setattr("neucodec_streaming.client.devices.SILENT_DEVICE_S", 0.3)
    monkeypatch.setattr(HandDriven, "level", 0.0)
    async with fake_server() as server:
        assert await run(command, "--seconds", 1, "--server", server.url) == 0
    assert capsys.readouterr().err.count("'Fake Mic' delivers only silence: is it muted") == 1


async def test_talk_plays_the_microphone_and_reports_each_part_of_the_latency(sound, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")
    async with fake_server() as server:
        assert await run("talk", "--seconds", 1, "--server", server.url) == 0
        shown = capsys.readouterr()
        assert await run("talk", "--seconds", 1, "--server", server.url, "--json") == 0
    for row in ("spoken", "heard", "to tokens", "to audio", "jitter buffer"):
        assert row in shown.err
    assert "lost samples" in shown.out
    figures = json.loads(capsys.readouterr().out)
    assert (figures["microphone"], figures["speaker"], figures["lost_samples"]) == ("Fake Mic", "Fake Speaker", 0)
    assert figures["tokens"] == int(figures["spoken_seconds"] * 50)
    assert figures["heard_seconds"] == figures["tokens"] / 50
    assert set(figures["latency"]) == {
        "microphone_ms",
        "algorithm_ms",
        "to_tokens_ms",
        "to_audio_ms",
        "jitter_buffer_ms",
        "speaker_ms",
    }
    heard = np.concatenate(HandDriven.heard)
    assert np.count_nonzero(np.abs(heard - 0.1) < 0.01) > 0.5 * 48_000


async def test_bench_measures_every_kind_of_session(capsys):
    async with fake_server() as server:
        assert await run("bench", "--seconds", 0.5, "--server", server.url, "--json") == 0
        figures = json.loads(capsys.readouterr().out)
        assert await run("bench", "--seconds", 0.02, "--server", server.url) == 0
    assert (figures["model"], figures["profile"], figures["seconds"]) == ("fake", "default", 0.5)
    assert [session["kind"] for session in figures["sessions"]] == ["encode", "decode", "roundtrip"]
    for session in figures["sessions"]:
        assert session["connect_ms"] > 0 and session["first_output_ms"] >= 80
        assert session["real_time_factor"] < 1
    table = capsys.readouterr().out
    assert "first output" in table and "roundtrip" in table


async def test_play_sends_all_tokens_to_the_speaker(tmp_path, sound, capsys):
    (tmp_path / "in.tok").write_bytes(np.full(40, 8192, "<u2").tobytes())
    async with fake_server() as server:
        assert await run("play", tmp_path / "in.tok", "--server", server.url, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["underruns"], figures["device_underruns"]) == (0, 0)
    assert "real_time_factor" not in figures
    heard = np.concatenate(HandDriven.heard)
    assert np.count_nonzero(np.abs(heard - 0.25) < 1e-3) > 0.95 * 40 * 960


def test_devices_are_listed_as_text_and_as_json(sound, capsys):
    assert main(["devices"]) == 0
    assert "Fake Speaker" in capsys.readouterr().out
    assert main(["devices", "--json"]) == 0
    assert [device["name"] for device in json.loads(capsys.readouterr().out)] == ["Fake Mic", "Fake Speaker"]


async def test_a_missing_device_has_its_own_exit_code(tmp_path, sound, capsys):
    async with fake_server() as server:
        assert await run("mic", "--device", "Studio", "--server", server.url) == 6
    assert "neucodec devices" in capsys.readouterr().err


async def test_a_missing_key_file_is_reported_without_an_errno(tmp_path, recording, capsys):
    assert await run("encode", recording, tmp_path / "out.tok", "--key-file", tmp_path / "nothing") == 3
    said = capsys.readouterr().err
    assert "cannot read the key file" in said and said.endswith("/nothing: No such file or directory\n")


async def test_an_endless_key_file_is_refused(tmp_path, recording, capsys):
    assert await run("encode", recording, tmp_path / "out.tok", "--key-file", "/dev/zero") == 3
    assert "/dev/zero: longer than 16,384 characters" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "form"), [("in.wav", "WAV"), ("in.flac", "FLAC"), ("in.ogg", "Ogg")])
async def test_raw_audio_that_is_a_file_with_a_header_is_refused(tmp_path, name, form, capsys):
    soundfile.write(tmp_path / name, np.zeros(1600), 16_000)
    async with fake_server() as server:
        code = await run("encode", tmp_path / name, tmp_path / "out.tok", "--rate", "16000", "--server", server.url)
    assert code == 3 and f"{form}, whose header declares the rate: omit --rate" in capsys.readouterr().err
    assert not (tmp_path / "out.tok").exists()


@pytest.mark.parametrize("name", ["in.raw", "in.pcm"])
async def test_raw_audio_without_its_rate_is_refused(tmp_path, name, capsys):
    (tmp_path / name).write_bytes(bytes(range(256)) * 100)
    code = await run("encode", tmp_path / name, tmp_path / "out.tok")
    assert code == 3 and "is raw audio, without a header: convert it to WAV, or pass --rate" in capsys.readouterr().err


async def test_empty_files_are_errors(tmp_path, capsys):
    (tmp_path / "in.tok").write_bytes(b"")
    (tmp_path / "in.json").write_text("[]")
    np.save(tmp_path / "in.npy", np.zeros(0, np.uint16))
    soundfile.write(tmp_path / "in.wav", np.zeros(0), 16_000)
    for command, name, what in (
        ("decode", "in.tok", "tokens"),
        ("decode", "in.json", "tokens"),
        ("decode", "in.npy", "tokens"),
        ("encode", "in.wav", "audio"),
    ):
        output = tmp_path / ("out.wav" if command == "decode" else "out.tok")
        assert await run(command, tmp_path / name, output, "--server", unused_url()) == 3
        assert f"{name} contains no {what}" in capsys.readouterr().err


async def test_bench_measures_only_the_kinds_that_are_served(capsys):
    async with fake_server() as server:
        server.kinds = ("decode",)
        assert await run("bench", "--seconds", "0.1", "--server", server.url, "--json") == 0
        assert [one["kind"] for one in json.loads(capsys.readouterr().out)["sessions"]] == ["decode"]
        server.kinds = ()
        assert await run("bench", "--seconds", "0.1", "--server", server.url) == 2
    assert "is unknown" in capsys.readouterr().err
