"""The calibration command writes a stream.json that streams load and that changes their output."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from neucodec_streaming import StreamConfig, load_codec
from neucodec_streaming.server.calibrate import audio_files, main, pieces
from neucodec_streaming.server.loading import load_engines
from neucodec_streaming.server.settings.fields import Settings
from tests.streaming.models import GOLDEN, codec_of, recording


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    folder = tmp_path / "speech" / "speaker"
    folder.mkdir(parents=True)
    soundfile.write(folder / "one.wav", recording(), 16_000)
    soundfile.write(folder / "two.FLAC", np.stack([recording(20_000)] * 2, axis=1), 8000)
    return folder.parent


def calibrate(*arguments: object) -> int:
    return main(["--model", str(GOLDEN), *map(str, arguments)])


def streamed(codec) -> tuple[np.ndarray, np.ndarray]:
    encoder, decoder = codec.encoder_stream(), codec.decoder_stream()
    tokens = np.arange(0, 65_536, 2048, dtype=np.uint16)
    return (
        np.concatenate([encoder.feed(recording()), encoder.flush()]),
        np.concatenate([decoder.feed(tokens), decoder.flush()]),
    )


def test_the_written_file_is_loaded_and_changes_the_streams(speech, tmp_path, capsys) -> None:
    out = tmp_path / "mine.json"
    assert calibrate("--data", speech, "--out", out, "--chunk", 4, "--prior-weight", 50) == 0
    assert "0.08 minutes in 2 pieces, level -2" in capsys.readouterr().out
    before = set(GOLDEN.iterdir())
    calibrated = load_codec(GOLDEN, stream_json=out)
    assert calibrated.default_config == StreamConfig(4, 5, 250, prior_weight=50)
    plain = codec_of("golden")
    tokens, audio = streamed(calibrated)
    plain_tokens, plain_audio = streamed(plain)
    assert (tokens != plain_tokens).any() and np.abs(audio - plain_audio).max() > 1e-3 * np.abs(plain_audio).max()
    for mine, theirs in zip(streamed(load_codec(GOLDEN, stream_json=out)), (tokens, audio), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert set(GOLDEN.iterdir()) == before


def test_the_server_takes_the_file_for_its_default_profile(speech, tmp_path) -> None:
    out = tmp_path / "mine.json"
    assert calibrate("--data", speech, "--out", out, "--chunk", 3) == 0
    torch.set_num_threads(1)
    settings = Settings(
        model=str(GOLDEN),
        profiles={"default": None},
        stream_json=str(out),
        dtype="bfloat16",
        batch_sizes=(1,),
        max_sessions=1,
        threads=1,
    )
    _, model = load_engines(settings)
    assert model.profiles["default"] == StreamConfig(3, 5, 250, prior_weight=12)


@pytest.mark.parametrize(
    ("suffix", "format", "subtype"),
    [
        (".wav", "WAV", "FLOAT"),
        (".flac", "FLAC", "PCM_16"),
        (".ogg", "OGG", "VORBIS"),
        (".opus", "OGG", "OPUS"),
        (".mp3", "MP3", "MPEG_LAYER_III"),
    ],
)
def test_every_kind_of_file_is_read(tmp_path, suffix, format, subtype) -> None:
    soundfile.write(tmp_path / f"one{suffix}", recording(), 16_000, format=format, subtype=subtype)
    (pcm,) = pieces(audio_files(tmp_path), 1)
    error = pcm[:32_000] - recording()[:32_000]
    assert np.square(error).mean() < 0.5 * np.square(recording()).mean()


def test_minutes_are_spread_over_the_files_and_within_them(tmp_path) -> None:
    rate = 8000
    for name in ("a", "b"):
        ramp = np.linspace(0, 0.5, 60 * rate, dtype=np.float32)
        soundfile.write(tmp_path / f"{name}.wav", ramp, rate, subtype="FLOAT")
    files = audio_files(tmp_path)
    (one,) = pieces(files[:1], 0.1)
    assert len(one) == 160_000 and one.mean() == pytest.approx(0.25, abs=0.01)
    levels = [piece.mean() for piece in pieces(files, 1)]
    assert levels == pytest.approx([0.5 / 6, 0.25, 2.5 / 6] * 2, abs=0.01)
    assert len(list(pieces(files, 1000))) == 12


def test_unreadable_files_are_named_and_skipped(speech, tmp_path, capsys) -> None:
    (speech / "broken.wav").write_bytes(b"RIFF")
    soundfile.write(speech / "nan.wav", np.full(16_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    soundfile.write(speech / "empty.wav", np.zeros(0, np.float32), 16_000)
    soundfile.write(speech / "silent.wav", np.zeros(32_000, np.float32), 16_000)
    soundfile.write(speech / "short.wav", recording(9000), 16_000)
    (speech / "notes.txt").write_text("no audio")
    assert calibrate("--data", speech, "--out", tmp_path / "mine.json") == 0
    said = capsys.readouterr()
    assert "in 2 pieces" in said.out
    assert "broken.wav" in said.err and "nan.wav: sample 0 of 16000 is nan" in said.err and "notes" not in said.err


def test_silence_alone_is_refused(tmp_path, capsys) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros(32_000, np.float32), 16_000)
    assert calibrate("--data", tmp_path, "--out", tmp_path / "mine.json") == 2
    assert "use minutes of speech" in capsys.readouterr().err
    assert not (tmp_path / "mine.json").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--data", "{}/none"], 2, r"contains no \.flac, .*set --data to a folder"),
        (["--out", "{}/none/mine.json"], 2, "set --out to a file in an existing, writable folder"),
        (["--out", "{}"], 2, "set --out to a file in an existing, writable folder"),
        (["--minutes", "0"], 2, "minutes is 0"),
        (["--minutes", "nan"], 2, "minutes is nan"),
        (["--chunk", "0"], 2, "chunk_frames is 0"),
        (["--device", "warp"], 2, "use cpu, cuda"),
        (["--model", "/no/such"], 3, "a hub id"),
    ],
)
def test_invalid_arguments_end_with_an_exit_code_and_advice(speech, tmp_path, capsys, arguments, code, says) -> None:
    arguments = [argument.format(tmp_path) for argument in arguments]
    assert calibrate("--data", speech, "--out", tmp_path / "mine.json", *arguments) == code
    assert re.search(says, capsys.readouterr().err)
    assert not (tmp_path / "mine.json").exists()
