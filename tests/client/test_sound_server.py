"""Microphone and speaker for real: PortAudio over a PulseAudio of the test's own, whose devices are null sinks."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from client.files import read_audio, read_tokens
from streaming import load_codec
from tests.server.hosting import GOLDEN, hosted

COMMANDS = ("pulseaudio", "pactl", "paplay", "parec")
installed = all(map(shutil.which, COMMANDS)) and any(Path("/usr/lib").glob("*/alsa-lib/libasound_module_pcm_pulse.so"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not installed, reason="needs Debian's pulseaudio, pulseaudio-utils and libasound2-plugins"),
]
SINKS = ("speaker", "voice")
"""What is played goes to `speaker`; what is played to `voice` is what the microphone hears."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The environment of a process whose default devices are the null sinks."""
    home = tmp_path_factory.mktemp("sound")
    (home / ".asoundrc").write_text("pcm.!default { type pulse }\nctl.!default { type pulse }\n")
    socket = home / "native"
    loads = [f"module-native-protocol-unix socket={socket}"]
    loads += [f"module-null-sink sink_name={name} rate=48000" for name in SINKS]
    command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--disable-shm", "--use-pid-file=no"]
    surroundings = {
        **os.environ,
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home),
        "PULSE_SERVER": f"unix:{socket}",
        "PULSE_LATENCY_MSEC": "60",
    }
    with (home / "log").open("w") as log:
        daemon = subprocess.Popen([*command, *(f"--load={load}" for load in loads)], env=surroundings, stderr=log)
        try:
            for setting in (("set-default-sink", "speaker"), ("set-default-source", "voice.monitor")):
                retry(("pactl", *setting), surroundings)
            yield surroundings
        finally:
            daemon.terminate()
            daemon.wait(10)


def retry(command: tuple[str, ...], surroundings: dict[str, str]) -> None:
    """Runs `command` until the daemon that it asks has come up, 20 s at most."""
    deadline = time.monotonic() + 20
    while subprocess.run(command, env=surroundings, capture_output=True, check=False, timeout=20).returncode:
        assert time.monotonic() < deadline, f"{' '.join(command)} failed: PulseAudio did not start"


def neucodec(surroundings: dict[str, str], *arguments: object) -> dict:
    """The command's summary."""
    command = [sys.executable, "-m", "client", *(str(argument) for argument in arguments), "--json"]
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def server():
    with hosted(batch_sizes=(1,), profiles={"default": None}, max_sessions=2) as host:
        yield host


def test_the_microphone_is_heard_and_nothing_is_lost(sound, server, data_folder, tmp_path):
    speech = read_audio(data_folder.parent.parent / "demos" / "data" / "speech.flac", 48_000)
    soundfile.write(tmp_path / "speech.wav", speech, 48_000)
    voice = subprocess.Popen(["paplay", "--device=voice", str(tmp_path / "speech.wav")], env=sound)
    try:
        summary = neucodec(sound, "mic", tmp_path / "heard.tok", "--seconds", 2, "--server", server.url)
    finally:
        voice.kill()
        voice.wait(10)
    tokens = read_tokens(tmp_path / "heard.tok")
    assert summary["lost_samples"] == 0
    assert len(tokens) == summary["tokens"] and 90 <= len(tokens) <= 110
    silence = load_codec(GOLDEN).encode(np.zeros(32_000, np.float32))
    assert len(np.unique(tokens)) > 4 * len(np.unique(silence))


def test_the_speaker_plays_what_the_tokens_stand_for(sound, server, tmp_path):
    tokens = np.random.default_rng(0).integers(0, 65_536, 100).astype("<u2")
    tokens.tofile(tmp_path / "spoken.tok")
    recorder = ["parec", "--device=speaker.monitor", "--rate=24000", "--channels=1", "--format=float32le"]
    with (tmp_path / "played").open("wb") as played:
        recording = subprocess.Popen(recorder, env=sound, stdout=played)
        try:
            summary = neucodec(sound, "play", tmp_path / "spoken.tok", "--server", server.url)
        finally:
            recording.terminate()
            recording.wait(10)
    assert summary["underruns"] == 0
    decoder = load_codec(GOLDEN).decoder_stream()
    expected = np.concatenate([decoder.feed(tokens.astype(np.uint16)), decoder.flush()])
    heard = np.frombuffer(Path(tmp_path / "played").read_bytes(), "<f4")
    assert np.median([best_correlation(heard, part) for part in expected[:40_000].reshape(-1, 4000)]) > 0.95


def best_correlation(heard: np.ndarray, wanted: np.ndarray) -> float:
    """The correlation, below 2 kHz, of `wanted` with the part of `heard` that it fits best: both at 24 kHz, and a
    fraction of a sample apart, as the devices have another rate."""
    heard, wanted = (soxr.resample(soxr.resample(x, 24_000, 4000), 4000, 24_000) for x in (heard, wanted))
    size = 1 << (len(heard) + len(wanted)).bit_length()
    products = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(wanted, size)))[: len(heard)]
    place = int(np.argmax(products))
    part = heard[place : place + len(wanted)]
    return float(part @ wanted[: len(part)] / (np.linalg.norm(part) * np.linalg.norm(wanted) + 1e-9))
