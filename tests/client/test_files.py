"""Audio and token files as streams."""

import os
from functools import partial

import numpy as np
import pytest
import soundfile

from neucodec_streaming.client.errors import FileError
from neucodec_streaming.client.files import (
    AudioReader,
    AudioWriter,
    TokenPipe,
    TokenWriter,
    audio_format,
    read_audio,
    read_tokens,
    token_form,
)
from neucodec_streaming.client.output_file import OutputFile
from neucodec_streaming.client.pipes import refuse_same_file
from neucodec_streaming.errors import AudioError, ConfigError, TokenError
from neucodec_streaming.resampler import resample

TOKENS = np.array([0, 1, 12345, 65535], np.uint16)


def tone(rate: int, seconds: float = 0.5) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


@pytest.mark.parametrize("ending", ["wav", "flac"])
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 44_100, 48_000])
def test_any_rate_and_channel_count_is_read_as_16_khz_mono(tmp_path, ending, channels, rate):
    path = tmp_path / f"in.{ending}"
    soundfile.write(path, np.repeat(tone(rate)[:, None], channels, axis=1), rate)
    reader = AudioReader(path, 16_000)
    audio = np.concatenate(list(reader))
    assert reader.seconds == 0.5
    assert audio.dtype == np.float32
    assert abs(audio.size - 8_000) <= 1
    assert np.abs(audio - tone(16_000)[: audio.size])[300:-300].max() < 2e-3


def test_packets_are_of_one_length_and_join_to_the_whole(tmp_path):
    path = tmp_path / "in.wav"
    soundfile.write(path, tone(24_000), 24_000, subtype="FLOAT")
    packets = list(AudioReader(path, 16_000, packet_seconds=0.02))
    assert [packet.size for packet in packets] == [320] * 25
    assert np.array_equal(np.concatenate(packets), resample(tone(24_000), 24_000, 16_000))
    assert np.array_equal(read_audio(path, 16_000), np.concatenate(packets))


def test_an_empty_recording_has_no_packets(tmp_path):
    soundfile.write(tmp_path / "in.wav", np.zeros(0, np.float32), 16_000)
    assert list(AudioReader(tmp_path / "in.wav", 16_000)) == []
    assert read_audio(tmp_path / "in.wav", 16_000).size == 0


def test_files_other_than_audio_are_named(tmp_path):
    (tmp_path / "in.wav").write_text("no audio at all")
    for path in (tmp_path / "in.wav", tmp_path / "missing.wav", tmp_path):
        with pytest.raises(FileError, match=str(path)):
            AudioReader(path, 16_000)


def test_nan_in_a_recording_is_an_audio_error(tmp_path):
    audio = tone(16_000)
    audio[100] = np.nan
    soundfile.write(tmp_path / "in.wav", audio, 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"in.wav: sample 100 \(0.006 s\) is nan"):
        list(AudioReader(tmp_path / "in.wav", 16_000))


def test_a_wav_is_written_by_packets_and_clipped(tmp_path):
    path = tmp_path / "out.wav"
    with AudioWriter(path, 24_000) as writer:
        writer.write(np.float32([0.5, 2.0]))
        writer.write(np.zeros(0, np.float32))
        writer.write(np.float32([-2.0]))
    audio, rate = soundfile.read(path, dtype="int16")
    assert (rate, audio.tolist(), writer.samples) == (24_000, [16384, 32767, -32768], 3)


def test_an_unwritable_wav_is_named(tmp_path):
    with pytest.raises(FileError, match="missing"):
        AudioWriter(tmp_path / "missing" / "out.wav", 24_000)


@pytest.mark.parametrize("name", ["t.tok", "t.bin", "t.npy", "t.npz", "t.txt", "t.json", "t.parquet", "T.TOK"])
def test_tokens_are_read_back_from_every_format(tmp_path, name):
    with TokenWriter(tmp_path / name) as writer:
        writer.write(TOKENS[:1])
        writer.write(TOKENS[1:])
    assert writer.tokens == 4
    assert np.array_equal(read_tokens(tmp_path / name), TOKENS)


def test_an_empty_token_sequence_is_a_valid_file(tmp_path):
    for name in ("t.tok", "t.npy", "t.npz", "t.txt", "t.json"):
        with TokenWriter(tmp_path / name):
            pass
        assert read_tokens(tmp_path / name).size == 0


def test_the_voices_of_neutts_are_read(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(torch.tensor([3, 2, 65535], dtype=torch.int32), tmp_path / "voice.pt")
    assert read_tokens(tmp_path / "voice.pt").tolist() == [3, 2, 65535]


def test_an_explicit_format_overrides_the_extension(tmp_path):
    (tmp_path / "tokens.dat").write_text("<|speech_7|>")
    assert read_tokens(tmp_path / "tokens.dat", "text").tolist() == [7]


def test_an_unknown_extension_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match=r"x.mp3 has no token-file extension: use .tok"):
        token_form("x.mp3")
    assert token_form("-") == "text"


@pytest.mark.parametrize("name", ["t.pt", "t.mp3"])
def test_unwritable_outputs_are_refused(tmp_path, name):
    with pytest.raises(ConfigError):
        TokenWriter(tmp_path / name)
    with pytest.raises(FileError, match="missing"):
        TokenWriter(tmp_path / "missing" / "t.tok")


def test_an_invalid_token_file_is_named_with_the_fault(tmp_path):
    (tmp_path / "t.tok").write_bytes(b"abc")
    with pytest.raises(TokenError, match=r"t.tok: 3 bytes"):
        read_tokens(tmp_path / "t.tok")
    with pytest.raises(FileError, match=r"missing.tok cannot be read: No such file"):
        read_tokens(tmp_path / "missing.tok")


def test_packets_of_a_raw_pipe_may_split_a_token_but_its_end_may_not():
    pipe = TokenPipe("raw")
    pieces = [pipe.feed(b"\x01"), pipe.feed(b"\x00\x02\x00\x03"), pipe.feed(b"\x00")]
    assert np.concatenate(pieces).tolist() == [1, 2, 3]
    assert pipe.finish().size == 0
    pipe.feed(b"\x01")
    with pytest.raises(TokenError, match="middle of token 3"):
        pipe.finish()
    with pytest.raises(ConfigError, match="npy"):
        TokenPipe("npy")


def test_a_pipe_without_a_token_is_refused():
    for form, payload, says in (
        ("raw", b"", "the pipe was empty"),
        ("text", b"", "the pipe was empty"),
        ("text", b" \n", "contained no tokens"),
        ("json", b"[]", "contained no tokens"),
        ("text", b"Traceback (most recent call last):\nKeyError: 'voice'\n", "ends with .*KeyError: 'voice'"),
        ("text", "<|speech_1|>".encode("utf-16"), "UTF-16"),
    ):
        pipe = TokenPipe(form)
        pipe.feed(payload)
        with pytest.raises(TokenError, match=says):
            pipe.finish()


@pytest.mark.parametrize(
    "name", ["a.flac", "a.ogg", "a.opus", "a.mp3", "a.aiff", "a.au", "a.caf", "a.w64", "a.rf64", "A.WAV"]
)
def test_the_extension_determines_the_audio_format(tmp_path, name):
    with AudioWriter(tmp_path / name, 24_000) as writer:
        writer.write(tone(24_000))
    audio, rate = soundfile.read(tmp_path / name)
    assert rate == 24_000
    assert abs(len(audio) - 12_000) <= 3_000
    assert np.sqrt(np.mean(np.square(audio))) == pytest.approx(0.3 / np.sqrt(2), rel=0.1)


def test_raw_samples_are_written_by_extension_or_format(tmp_path):
    for name, format in (("a.raw", None), ("a.pcm", None), ("a.dat", "raw")):
        with AudioWriter(tmp_path / name, 24_000, format) as writer:
            writer.write(np.float32([0.5, -0.5]))
        assert np.fromfile(tmp_path / name, "<i2").tolist() == [16384, -16384]


def test_an_unknown_audio_extension_is_refused(tmp_path):
    for name in ("a.tok", "a", "a.m4a"):
        with pytest.raises(ConfigError, match=r"has no audio extension: use .wav"):
            audio_format(tmp_path / name)


class Stopped(Exception):
    """Ends a writer's context."""


@pytest.mark.parametrize(("writer", "name"), [(AudioWriter, "o.wav"), (TokenWriter, "o.tok"), (TokenWriter, "o.npy")])
def test_output_appears_only_when_complete(tmp_path, writer, name):
    options = (24_000,) if writer is AudioWriter else ()
    piece = np.zeros(9, np.float32) if writer is AudioWriter else TOKENS
    (tmp_path / name).write_bytes(b"old")
    (tmp_path / name).chmod(0o640)
    with pytest.raises(Stopped), writer(tmp_path / name, *options) as output:
        output.write(piece)
        raise Stopped
    assert (tmp_path / name).read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with writer(tmp_path / name, *options) as output:
        output.write(piece)
        assert (tmp_path / name).read_bytes() == b"old"
    assert (tmp_path / name).read_bytes() != b"old"
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_recorded_audio_is_kept_when_the_command_fails(tmp_path):
    with pytest.raises(Stopped), TokenWriter(tmp_path / "o.tok", keep=True) as output:
        output.write(TOKENS)
        raise Stopped
    assert np.array_equal(read_tokens(tmp_path / "o.tok"), TOKENS)


@pytest.mark.parametrize("name", ["kept.tok", "kept.wav"])
def test_a_command_that_fails_before_any_output_leaves_the_existing_file(tmp_path, name):
    (tmp_path / name).write_bytes(b"mine")
    new = TokenWriter if name.endswith("tok") else partial(AudioWriter, rate=24_000)
    with pytest.raises(RuntimeError), new(tmp_path / name, keep=True):
        raise RuntimeError
    assert (tmp_path / name).read_bytes() == b"mine" and len(list(tmp_path.iterdir())) == 1


def test_the_next_command_removes_temporary_files_of_killed_commands_only(tmp_path):
    writing = OutputFile(tmp_path / "o[1].tok")
    os.rename(writing.temporary, tmp_path / ".o[1].tok.1.part")  # as by another process
    (tmp_path / ".o[1].tok.2.part").write_bytes(b"left")
    (tmp_path / ".other.tok.2.part").write_bytes(b"of another output")
    with TokenWriter(tmp_path / "o[1].tok"):
        assert sorted(path.name for path in tmp_path.glob(".*")) == sorted(
            [".o[1].tok.1.part", f".o[1].tok.{os.getpid()}.part", ".other.tok.2.part"]
        )


def test_an_output_that_is_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "real.tok").write_bytes(b"old")
    (tmp_path / "link.tok").symlink_to("real.tok")
    with TokenWriter(tmp_path / "link.tok") as output:
        output.write(TOKENS)
    assert (tmp_path / "link.tok").is_symlink()
    assert np.array_equal(read_tokens(tmp_path / "real.tok"), TOKENS)


def test_folders_and_missing_folders_are_refused_as_outputs(tmp_path):
    (tmp_path / "folder.tok").mkdir()
    with pytest.raises(FileError, match="it is a folder"):
        TokenWriter(tmp_path / "folder.tok")
    with pytest.raises(FileError, match="No such file"):
        TokenWriter(tmp_path / "missing" / "o.tok")


def test_using_one_file_as_input_and_output_is_refused_under_any_name(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"audio")
    (tmp_path / "soft.wav").symlink_to(path)
    (tmp_path / "hard.wav").hardlink_to(path)
    with path.open("rb") as file:
        names = (path, tmp_path / "soft.wav", tmp_path / "hard.wav", tmp_path / "." / "a.wav")
        for other in (*names, f"/dev/fd/{file.fileno()}", f"/proc/self/fd/{file.fileno()}"):
            with pytest.raises(ConfigError, match="the same file"):
                refuse_same_file(path, other)
            with pytest.raises(ConfigError, match="the same file"):
                refuse_same_file(other, path)
    refuse_same_file(path, tmp_path / "new.wav")
    refuse_same_file("/dev/null", "/dev/null")
