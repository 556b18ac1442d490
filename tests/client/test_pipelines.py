"""The command among other programs in a shell: pipes, FIFOs, process substitution, Ctrl-C, closed descriptors."""

import asyncio
import io
import os
import signal
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from neucodec_streaming.client.files import read_tokens
from tests.client.fake_server import Fault, fake_server

pytestmark = pytest.mark.slow
NEUCODEC = f"{sys.executable} -m neucodec_streaming.client"
STREAMED = 0xFFFF_FFFF


async def shell(command: str, cwd: Path, server: str, stdin: bytes = b"") -> tuple[int, bytes, str]:
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", command, cwd=cwd, stdin=-1, stdout=-1, stderr=-1,
        env={**os.environ, "NEUCODEC_SERVER": server, "N": NEUCODEC},
    )  # fmt: skip
    async with asyncio.timeout(30):
        output, said = await process.communicate(stdin)
    assert b"Traceback" not in said, said.decode()
    assert process.returncode is not None
    return process.returncode, output, said.decode()


def frames(count: int) -> np.ndarray:
    """Frame i of 20 ms starts with sample i: the fake server's token i."""
    audio = np.zeros((count, 320), np.int16)
    audio[:, 0] = np.arange(count)
    return audio.reshape(-1)


def wav(audio: np.ndarray, length: int | None = None, **options) -> bytes:
    """`length` replaces the one in the header."""
    buffer = io.BytesIO()
    soundfile.write(buffer, audio, 16_000, format="WAV", **options)
    payload = bytearray(buffer.getvalue())
    if length is not None:
        struct.pack_into("<I", payload, payload.index(b"data") + 4, length)
    return bytes(payload)


@pytest.mark.parametrize("length", [None, 0, STREAMED, 0x7FFF_FFFF - 36])
async def test_wav_from_a_pipe_is_read_to_its_end(tmp_path, length):
    async with fake_server() as server:
        code, output, said = await shell("$N encode - out.tok", tmp_path, server.url, wav(frames(50), length))
    assert (code, output.count(b"\n") > 3, said) == (0, True, "")
    assert read_tokens(tmp_path / "out.tok").tolist() == list(range(50))


@pytest.mark.parametrize("format", ["FLAC", "OGG", "MP3", "AIFF", "AU"])
async def test_other_formats_can_be_read_from_a_pipe_too(tmp_path, format):
    buffer = io.BytesIO()
    soundfile.write(buffer, frames(50), 16_000, format=format)
    (tmp_path / "in").write_bytes(buffer.getvalue())
    async with fake_server() as server:
        code, _, said = await shell("cat in | $N encode - out.tok", tmp_path, server.url)
    assert (code, said) == (0, "")
    assert read_tokens(tmp_path / "out.tok").size == 50


@pytest.mark.parametrize(
    "command",
    [
        "$N encode <(cat in.wav) out.tok",
        "$N encode /dev/stdin out.tok < in.wav",
        "cat in.wav | $N encode /dev/stdin out.tok",
        "$N encode - out.tok < in.wav",
        "mkfifo pipe; cat in.wav > pipe & $N encode pipe out.tok",
        "tail -c +45 in.wav | $N encode --rate 16000 - out.tok",
        "tail -c +45 in.wav > in.raw; $N encode --rate 16000 in.raw out.tok",
        "$N encode in.wav >(cat > out.txt) --form raw && sleep 0.2 && mv out.txt out.tok",
        "$N encode in.wav - | $N decode - - | $N encode - - | cat > out.txt; mv out.txt out.tok.txt",
    ],
)
async def test_every_kind_of_pipe_carries_audio_and_tokens(tmp_path, command):
    (tmp_path / "in.wav").write_bytes(wav(frames(50)))
    async with fake_server() as server:
        code, _, said = await shell(command, tmp_path, server.url)
    assert code == 0, said
    if (tmp_path / "out.tok").exists():
        assert read_tokens(tmp_path / "out.tok").tolist() == list(range(50))
    else:
        assert read_tokens(tmp_path / "out.tok.txt").size == 50


async def test_audio_to_a_pipe_is_wav_of_open_length_or_raw(tmp_path):
    np.arange(20, dtype="<u2").tofile(tmp_path / "in.tok")
    samples = np.repeat(np.arange(20), 480).astype("<i2").tobytes()
    async with fake_server() as server:
        code, output, said = await shell("$N decode in.tok -", tmp_path, server.url)
        assert (code, output[44:]) == (0, samples)
        assert struct.unpack_from("<I", output, 40) == (STREAMED,)
        assert "written      standard output" in said or "written" in said
        (tmp_path / "again.wav").write_bytes(output)
        assert soundfile.read(tmp_path / "again.wav", dtype="int16")[0].tobytes() == samples
        for command in ("$N decode in.tok - --format raw", "$N decode in.tok /dev/stdout --format raw | cat"):
            assert (await shell(command, tmp_path, server.url))[:2] == (0, samples)


@pytest.mark.parametrize(
    ("command", "stdin", "says"),
    [
        ("$N decode - out.wav", b"", "the pipe was empty"),
        ("$N decode - out.wav", b"Trace ...\nKeyError: 'x'\n", "KeyError: 'x'"),
        ("$N decode - out.wav", "<|speech_1|>".encode("utf-16"), "UTF-16"),
        ("$N decode - out.wav", b"[1, 2]", "its form is json"),
        ("$N encode - out.tok", b"", "standard input was empty"),
        ("$N encode - -", b"", "standard input was empty"),
        ("$N decode - -", b"", "the pipe was empty"),
        ("$N encode - out.tok", b"no audio", "cannot be read as audio"),
        ("$N encode - out.tok", wav(np.zeros(0, np.float32)), "standard input contains no audio"),
        ("$N encode /dev/zero out.tok", b"", "/dev/zero is a device without WAV audio: for raw samples pass --rate"),
        ("$N encode - out.tok <&-", b"", "standard input is closed"),
        ("$N decode - out.wav <&-", b"", "standard input is closed"),
        ("$N roundtrip - - >&-", wav(frames(5)), "standard output is closed"),
        ("$N decode --form npy - out.wav", b"", "cannot be written to a pipe"),
    ],
)
async def test_an_unusable_pipe_is_an_error_and_leaves_no_file(tmp_path, command, stdin, says):
    async with fake_server() as server:
        code, output, said = await shell(command, tmp_path, server.url, stdin)
    assert output == b""
    assert code == (2 if "npy" in command else 3)
    assert said.startswith("neucodec: ") and says in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


async def test_tokens_before_a_bad_one_are_kept(tmp_path):
    text = b"<|speech_1|><|speech_2|><|speech_65536|><|speech_3|>"
    async with fake_server() as server:
        code, _, said = await shell("$N decode - out.wav", tmp_path, server.url, text)
    assert code == 3
    assert "standard input: token 2 is 65536" in said and "the part before it is in out.wav" in said
    assert soundfile.read(tmp_path / "out.wav", dtype="int16")[0].tolist() == [1] * 480 + [2] * 480


@pytest.mark.parametrize(
    ("command", "name", "stdin"),
    [
        ("$N decode - out.wav", "out.wav", b"<|speech_1|><|speech_65536|>"),
        ("$N encode - out.tok --form raw", "out.tok", wav(np.full(640, np.nan, np.float32), subtype="FLOAT")),
        ("$N encode - out.tok", "out.tok", wav(np.append(np.zeros(9600), np.nan).astype("<f4"), subtype="FLOAT")),
    ],
)
async def test_a_damaged_pipe_leaves_the_existing_file(tmp_path, command, name, stdin):
    (tmp_path / name).write_bytes(b"good")
    async with fake_server() as server:
        code, _, said = await shell(command, tmp_path, server.url, stdin)
    assert code == 3 and (tmp_path / name).read_bytes() == b"good" and len(list(tmp_path.iterdir())) == 1
    assert said.count("standard input: ") == 1
    if "--form" not in command:
        assert said.endswith(f"; {name} is unchanged\n")


async def test_a_closed_pipe_during_a_listing_is_not_an_error(tmp_path):
    for line in ("$N completion bash | head -c 1", "$N --help | true", "$N devices --help | true"):
        code, _, said = await shell(f"set -o pipefail; {line}", tmp_path, "ws://127.0.0.1:1")
        assert (code, said) == (0, ""), line


async def test_a_reader_that_closes_its_pipe_early_is_not_an_error(tmp_path):
    np.zeros(5000, "<u2").tofile(tmp_path / "in.tok")
    async with fake_server() as server:
        code, output, said = await shell("set -o pipefail; $N decode in.tok - | head -c 99", tmp_path, server.url)
    assert (code, len(output), said) == (0, 99, "")


async def test_a_slow_reader_causes_back_pressure(tmp_path):
    np.zeros(5000, "<u2").tofile(tmp_path / "in.tok")
    os.mkfifo(tmp_path / "pipe")
    async with fake_server() as server:
        running = asyncio.create_task(shell("$N decode in.tok pipe --format raw", tmp_path, server.url))
        with await asyncio.to_thread((tmp_path / "pipe").open, "rb") as pipe:
            first = await asyncio.to_thread(pipe.read, 1000)
            async with asyncio.timeout(10):
                heard = -1
                while heard < 400 or heard != server.heard_units:
                    heard = server.heard_units
                    await asyncio.sleep(0.2)
            assert heard <= 25 * 25  # 10 s, and what fits into the pipe and into one packet
            rest = await asyncio.to_thread(pipe.read)
        assert (await running)[0] == 0
    assert len(first + rest) == 5000 * 480 * 2


@pytest.mark.parametrize(
    ("signals", "pause_s"),
    [([signal.SIGINT], 0), ([signal.SIGTERM], 0), ([signal.SIGINT] * 2, 0), ([signal.SIGINT] * 3, 0.01)],
)
async def test_ctrl_c_leaves_no_partial_file_and_reports_the_progress(tmp_path, signals, pause_s):
    (tmp_path / "in.wav").write_bytes(wav(frames(3000)))
    (tmp_path / "out.tok").write_bytes(b"old")
    async with fake_server() as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "neucodec_streaming.client", "encode", "in.wav", "out.tok", "--realtime",
            "--server", server.url, cwd=tmp_path, stdout=-1, stderr=-1,
        )  # fmt: skip
        await server.heard.wait()
        await asyncio.sleep(0.1)  # the client is anywhere in its recording
        for number in signals:
            process.send_signal(number)
            await asyncio.sleep(pause_s)
        async with asyncio.timeout(10):
            output, said = await process.communicate()
    assert (process.returncode, output) == (130, b"")
    assert said.decode().startswith("neucodec: interrupted") and said.count(b"\n") == 1
    if len(signals) == 1:
        assert b"s of input and" in said and b"out.tok was not written" in said
    assert (tmp_path / "out.tok").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.wav", "out.tok"]


async def test_ctrl_c_at_any_moment_gives_no_traceback(tmp_path):
    (tmp_path / "in.wav").write_bytes(wav(frames(3000)))
    async with fake_server(Fault.NO_READY) as server:
        for step in range(8):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "neucodec_streaming.client", "encode", "in.wav", "out.tok",
                "--server", server.url, cwd=tmp_path, stdout=-1, stderr=-1,
            )  # fmt: skip
            await asyncio.sleep(0.1 + 0.08 * step)  # anywhere: while Python starts, imports, connects, waits
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(10):
                _, said = await process.communicate()
            if b"Traceback" not in said or b"neucodec_streaming/client" in said:  # else Python itself was starting
                assert process.returncode in (130, -signal.SIGINT)
                assert b"Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["in.wav"]


async def test_a_full_disk_is_an_error_and_leaves_no_file(tmp_path):
    np.zeros(5000, "<u2").tofile(tmp_path / "in.tok")
    (tmp_path / "in.wav").write_bytes(wav(frames(5000)))
    async with fake_server() as server:
        for command in ("$N decode in.tok out.wav", "$N encode in.wav out.txt", "$N decode in.tok out.flac"):
            code, _, said = await shell(f"trap '' XFSZ; ulimit -f 4; {command}", tmp_path, server.url)
            assert code == 3
            assert said.startswith("neucodec: out.") and "written" in said
        code, _, said = await shell("$N decode in.tok - > /dev/full", tmp_path, server.url)
        assert (code, said) == (3, "neucodec: standard output cannot be written: No space left on device\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.tok", "in.wav"]
