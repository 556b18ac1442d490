"""Microphone and speaker for real: PortAudio over a PulseAudio of the test's own, whose devices are null sinks."""

import json
import select
import subprocess
import sys

import numpy as np
import pytest
import soxr

from benchmarks.common.sound_room import RATE, Recorder, installed, say, sound_room
from benchmarks.mouth_to_ear.__main__ import MAX_CLEAR_MS, SPEECH, measure_clear, measure_way, serving, spoken
from neucodec_streaming import load_codec
from neucodec_streaming.client.files import read_audio, read_tokens
from tests.server.hosting import GOLDEN, hosted

TRIES = 3
"""If other programs keep the device from playing on time, the words are heard with gaps."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not installed(), reason="needs Debian's pulseaudio, pulseaudio-utils and libasound2-plugins"),
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    with sound_room(tmp_path_factory.mktemp("sound")) as surroundings:
        yield surroundings


def neucodec(surroundings: dict[str, str], *arguments: object) -> dict:
    command = [sys.executable, "-m", "neucodec_streaming.client", *(str(argument) for argument in arguments), "--json"]
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def server():
    with hosted(batch_sizes=(1,), profiles={"default": None}, max_sessions=2) as host:
        yield host


def test_the_microphone_is_heard_and_nothing_is_lost(sound, server, tmp_path):
    voice = say(read_audio(SPEECH, RATE), sound)
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


def test_the_speaker_plays_the_decoded_tokens(sound, server, tmp_path):
    tokens = np.random.default_rng(0).integers(0, 65_536, 100).astype("<u2")
    tokens.tofile(tmp_path / "spoken.tok")
    for _ in range(TRIES):
        with Recorder(sound) as recorder:
            summary = neucodec(sound, "play", tmp_path / "spoken.tok", "--server", server.url)
        assert summary["underruns"] == 0
        if not summary["device_underruns"]:
            break
    decoder = load_codec(GOLDEN).decoder_stream()
    expected = np.concatenate([decoder.feed(tokens.astype(np.uint16)), decoder.flush()])
    heard = soxr.resample(recorder.ear, RATE, 24_000)
    assert min(best_correlation(heard, part) for part in expected.reshape(-1, 4000)) > 0.95


def test_talk_sends_all_audio_of_the_microphone(sound, server):
    voice = say(read_audio(SPEECH, RATE), sound)
    try:
        with Recorder(sound) as recorder:
            summary = neucodec(sound, "talk", "--seconds", 2, "--server", server.url)
    finally:
        voice.kill()
        voice.wait(10)
    assert (summary["lost_samples"], summary["resumed"]) == (0, [])
    assert summary["tokens"] == int(summary["spoken_seconds"] * 50)
    assert summary["heard_seconds"] == summary["tokens"] / 50
    latency = summary["latency"]
    assert latency["algorithm_ms"] == 315
    assert 0 < latency["to_tokens_ms"] < 1_000 and 0 < latency["to_audio_ms"] < 1_000
    assert np.count_nonzero(np.abs(recorder.ear) > 1e-3) > RATE // 2


def test_a_lost_sound_server_is_reported(server, tmp_path):
    command = [sys.executable, "-m", "neucodec_streaming.client", "mic", "-", "--server", server.url]
    with sound_room(tmp_path) as room:
        listening = subprocess.Popen(command, env=room, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert select.select([listening.stdout], [], [], 20)[0], "no tokens"
    try:
        _, told = listening.communicate(timeout=20)
    finally:
        listening.kill()
    assert listening.returncode == 6, told
    assert b"check that it is plugged in" in told


@pytest.mark.alone
def test_latency_is_the_sum_of_its_reported_parts_and_clear_is_quick(sound, tmp_path):
    codec = load_codec("nano")
    with serving("nano", "low") as url:
        way = measure_way(sound, url, "low", spoken(None, 5), codec)
        clear = measure_clear(sound, url, "low", codec, 3, tmp_path)
    assert (way["microphone_lost"], way["underruns"]) == (0, 0)
    assert way["latency_most_ms"] - way["latency_least_ms"] <= 20
    assert abs(way["latency_ms"] - way["sum_of_parts_ms"]) < 60
    assert way["stoi"] > way["stoi_codec_alone"] - 0.05
    assert clear["clear_to_silence_median_ms"] < MAX_CLEAR_MS
    assert clear["sounds_after_silence"] == 0
    assert abs(clear["heard_position_error_median_ms"]) < 30


def best_correlation(heard: np.ndarray, wanted: np.ndarray) -> float:
    """The correlation, below 2 kHz, of `wanted` with the part of `heard` that it fits best: both at 24 kHz, and a
    fraction of a sample apart, as the devices have another rate."""
    heard, wanted = (soxr.resample(soxr.resample(x, 24_000, 4000), 4000, 24_000) for x in (heard, wanted))
    size = 1 << (len(heard) + len(wanted)).bit_length()
    products = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(wanted, size)))[: len(heard)]
    place = int(np.argmax(products))
    part = heard[place : place + len(wanted)]
    return float(part @ wanted[: len(part)] / (np.linalg.norm(part) * np.linalg.norm(wanted) + 1e-9))
