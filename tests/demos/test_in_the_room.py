"""The demos with virtual devices: audio goes into the microphone and comes out of the speaker."""

import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile

from benchmarks.common.sound_room import RATE, Recorder, installed, lift, say, sound_room
from demos.demo import RECORDING
from neucodec_streaming.client.files import read_audio
from tests.server.hosting import hosted

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.skipif(not installed(), reason="needs Debian's pulseaudio, pulseaudio-utils and libasound2-plugins"),
]
SOUND = 2e-4
SPOKEN_S = 2.0
DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    with sound_room(tmp_path_factory.mktemp("room")) as surroundings:
        yield surroundings


@pytest.fixture(scope="module")
def server():
    with hosted(batch_sizes=(1,), profiles={"default": None}) as host:
        yield host


class Demo:
    """`told` waits until the demo prints a line with this word."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._process = process

    def told(self, word: str) -> None:
        assert self._process.stdout is not None
        while select.select([self._process.stdout], [], [], DEADLINE_S)[0]:
            line = self._process.stdout.readline()
            assert line, f"the demo ended before it said {word!r}"
            if word in line:
                return
        raise TimeoutError(f"the demo did not say {word!r}")


@contextmanager
def running(module: str, room: dict[str, str], url: str) -> Iterator[Demo]:
    command = [sys.executable, "-m", module, "--server", url]
    process = subprocess.Popen(command, env=room, stdout=subprocess.PIPE, text=True, bufsize=1)
    lift(process.pid)
    try:
        yield Demo(process)
    finally:
        process.terminate()
        process.wait(20)


def stretches(side: np.ndarray, longest_gap_s: float) -> list[tuple[float, float]]:
    """Intervals with sound: (begin, end) in seconds, pauses up to `longest_gap_s` included."""
    sounds = np.flatnonzero(np.abs(side) > SOUND)
    firsts = np.flatnonzero(np.diff(sounds, prepend=-RATE * 10) > longest_gap_s * RATE)
    ends = sounds[np.append(firsts[1:], sounds.size) - 1]
    return [(begin / RATE, end / RATE) for begin, end in zip(sounds[firsts], ends, strict=True)]


@pytest.mark.parametrize("module", ["demos.agent", "demos.agent_pipecat"])
def test_the_agent_answers_and_falls_silent_when_it_is_interrupted(room, server, module):
    speech = read_audio(RECORDING, RATE)[: round(SPOKEN_S * RATE)]
    with Recorder(room) as recorder, running(module, room, server.url) as agent:
        agent.told("listening")
        for _ in range(2):
            say(speech, room)
            agent.told("answering")
            time.sleep(2.0)  # the user hears part of the answer before speaking again
    (first, second), answers = stretches(recorder.mouth, 1.0), stretches(recorder.ear, 1.0)
    assert len(answers) == 2
    assert first[1] < answers[0][0] < second[0]
    assert second[0] < answers[0][1] < second[0] + 0.9  # the detector's delay and 60 ms
    assert second[1] < answers[1][0]


def test_speech_at_the_pace_of_a_language_model_plays_without_a_stutter(room, server, tmp_path):
    soundfile.write(tmp_path / "said.wav", read_audio(RECORDING, RATE)[: 4 * RATE], RATE)
    command = [sys.executable, "-m", "demos.tts", "--server", server.url, "--recording", str(tmp_path / "said.wav")]
    with Recorder(room) as recorder:
        done = subprocess.run(command, env=room, capture_output=True, text=True, check=False, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["breaks"], figures["device_breaks"]) == (0, 0)
    assert figures["longest_pause_ms"] > 100
    (heard,) = stretches(recorder.ear, 0.1)
    assert heard[1] - heard[0] == pytest.approx(figures["seconds"], abs=0.1)
