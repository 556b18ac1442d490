"""A PulseAudio server without hardware: a room whose microphone and speaker are null sinks.

The room is one sink of two channels, so one recording holds both sides on one clock: audio played to the sink `mouth`
is on its left channel and reaches the microphone; the default speaker's audio is on its right, the ear. Its processes
run at real-time priority where the system allows it, as audio does on a desktop. Needs Debian's pulseaudio,
pulseaudio-utils and libasound2-plugins.
"""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import numpy as np

from benchmarks.common.processes import family

COMMANDS = ("pulseaudio", "pactl", "pacat", "parec")
RATE = 48_000
START_SECONDS = 20.0
READ_BYTES = 16_384
_SIDES = "channels=1 channel_map=mono remix=no"
MODULES = (
    f"module-null-sink sink_name=room rate={RATE} channels=2 channel_map=front-left,front-right",
    f"module-remap-sink sink_name=mouth master=room master_channel_map=front-left {_SIDES}",
    f"module-remap-sink sink_name=speaker master=room master_channel_map=front-right {_SIDES}",
    f"module-remap-source source_name=microphone master=room.monitor master_channel_map=front-left {_SIDES}",
)


def lift(pid: int, priority: int = 10) -> None:
    """Real-time priority for all present and future threads of a process and its children, if this user may set it."""
    with suppress(PermissionError):
        for thread in (thread for one in family(pid) for thread in os.listdir(f"/proc/{one}/task")):
            os.sched_setscheduler(int(thread), os.SCHED_RR, os.sched_param(priority))


def installed() -> bool:
    plugin = any(Path("/usr/lib").glob("*/alsa-lib/libasound_module_pcm_pulse.so"))
    return plugin and all(map(shutil.which, COMMANDS))


@contextmanager
def sound_room(home: Path) -> Iterator[dict[str, str]]:
    """The environment of a process whose default devices are those of the room; files go to `home`."""
    (home / ".asoundrc").write_text("pcm.!default { type pulse }\nctl.!default { type pulse }\n")
    socket = home / "native"
    surroundings = {
        **os.environ,
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home),
        "PULSE_SERVER": f"unix:{socket}",
    }
    command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--disable-shm"]
    command += ["--use-pid-file=no"]
    command += [f"--load={module}" for module in (f"module-native-protocol-unix socket={socket}", *MODULES)]
    with (home / "pulseaudio.log").open("w") as log:
        daemon = subprocess.Popen(command, env=surroundings, stderr=log)
        try:
            for setting in (("set-default-sink", "speaker"), ("set-default-source", "microphone")):
                _retry(("pactl", *setting), surroundings)
            lift(daemon.pid, 20)
            yield surroundings
        finally:
            daemon.terminate()
            daemon.wait(10)


def _retry(command: tuple[str, ...], surroundings: dict[str, str]) -> None:
    """Repeats `command` until the daemon that it queries is up."""
    deadline = time.monotonic() + START_SECONDS
    while subprocess.run(command, env=surroundings, capture_output=True, check=False, timeout=20).returncode:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{' '.join(command)} failed for {START_SECONDS:g} s: PulseAudio did not start")
        time.sleep(0.05)


class Recorder:
    """The room while its context is open; `mouth` and `ear` are float32 (n,) at RATE afterwards."""

    def __init__(self, surroundings: dict[str, str]) -> None:
        self._surroundings = surroundings
        self._parts: list[bytes] = []
        self._reads: list[tuple[int, float]] = []

    def __enter__(self) -> Self:
        command = ["parec", "--device=room.monitor", f"--rate={RATE}", "--channels=2", "--format=s16le"]
        command += ["--latency-msec=5"]
        self._process = subprocess.Popen(command, env=self._surroundings, stdout=subprocess.PIPE, bufsize=0)
        lift(self._process.pid)
        self._thread = threading.Thread(target=self._read, name="recorder", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._thread.join(10)
        self._process.wait(10)
        payload = b"".join(self._parts)
        samples = np.frombuffer(payload[: len(payload) // 4 * 4], "<i2").reshape(-1, 2)
        self.mouth, self.ear = (samples[:, side].astype(np.float32) / 32_768 for side in (0, 1))

    def moment(self, sample: int) -> float:
        """When that sample was in the room, in time.perf_counter, a few ms late."""
        ends = [end for end, _ in self._reads]
        return self._reads[int(np.searchsorted(ends, sample * 4, side="right"))][1]

    def sample_at(self, moment: float) -> int:
        """The sample in the room at that time."""
        moments = [read for _, read in self._reads]
        return self._reads[min(int(np.searchsorted(moments, moment)), len(moments) - 1)][0] // 4

    def _read(self) -> None:
        assert self._process.stdout is not None
        total = 0
        while part := self._process.stdout.read(READ_BYTES):
            total += len(part)
            self._parts.append(part)
            self._reads.append((total, time.perf_counter()))


def say(audio: np.ndarray, surroundings: dict[str, str]) -> subprocess.Popen:
    """Plays float32 (n,) at RATE to the microphone, from its own thread; the process ends with it."""
    command = ["pacat", "--playback", "--device=mouth", f"--rate={RATE}", "--channels=1"]
    command += ["--format=float32le", "--latency-msec=50"]
    voice = subprocess.Popen(command, env=surroundings, stdin=subprocess.PIPE)
    lift(voice.pid)

    def feed() -> None:
        voice.communicate(audio.astype("<f4").tobytes())

    threading.Thread(target=feed, name="voice", daemon=True).start()
    return voice
