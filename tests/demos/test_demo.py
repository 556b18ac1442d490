"""`make demo`, without waiting for the pace of a microphone, on the golden model and two seconds of speech."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from demos.demo import RECORDING, LatencyLog
from neucodec_streaming.client.files import read_tokens
from neucodec_streaming.client.transfer import TransferReport
from neucodec_streaming.protocol.messages import INPUT_AUDIO, TOKENS, Ready

ROOT = Path(__file__).resolve().parent.parent.parent
GOLDEN = ROOT / "tests" / "data" / "neucodec-mini"


def test_latency_runs_from_a_chunks_first_sample_to_its_tokens():
    log = LatencyLog()
    report = TransferReport(Ready("s", "m", "default", 5, 5, 215.0, INPUT_AUDIO, TOKENS))
    for input_units, output_units, elapsed_s in (
        (3_840, 5, 0.25),
        (3_840, 5, 0.26),
        (5_440, 10, 0.36),
        (5_440, 17, 0.4),
    ):
        report.input_units, report.output_units, report.elapsed_s = input_units, output_units, elapsed_s
        log(report)
    assert log.milliseconds == pytest.approx([250.0, 260.0])


@pytest.mark.slow
def test_the_demo_writes_tokens_audio_picture_and_figures(tmp_path):
    audio, rate = soundfile.read(RECORDING, frames=48_000)
    soundfile.write(tmp_path / "in.wav", audio, rate)
    command = [sys.executable, "-m", "demos.demo", "--fast", "--model", str(GOLDEN)]
    command += ["--recording", str(tmp_path / "in.wav"), "--output", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (figures["tokens"], figures["seconds"], figures["bits_per_second"]) == (100, 2.0, 800)
    assert read_tokens(tmp_path / "out" / "speech.tok").size == 100
    assert soundfile.info(tmp_path / "out" / "speech.wav").frames == 48_000
    assert (tmp_path / "out" / "spectrograms.png").stat().st_size > 10_000
    assert -1 <= figures["stoi"] <= 1
    for words in ("spectrograms.png", "800 bit/s", "real-time factor", "STOI", "algorithmic"):
        assert words in done.stdout


@pytest.mark.slow
def test_a_server_that_cannot_start_ends_the_demo_with_its_reason(tmp_path):
    command = [sys.executable, "-m", "demos.demo", "--model", str(tmp_path), "--output", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "config.json" in done.stderr
    assert "the server ended with status 3" in done.stderr
