"""A real Mosquitto on a free port of this machine, which can be stopped, killed and restarted."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
DEADLINE_S = 10.0


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class Broker:
    """Lines of `extra` configuration follow the listener's."""

    def __init__(self, folder: Path, extra: str = "allow_anonymous true\n", scheme: str = "mqtt") -> None:
        self.port = free_port()
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self._config = folder / f"mosquitto-{self.port}.conf"
        self._config.write_text(f"listener {self.port} 127.0.0.1\n{extra}")
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Returns when it listens."""
        assert MOSQUITTO is not None, "apt-get install mosquitto"
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline_s:
            assert self._process.poll() is None, "mosquitto did not start"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.01)
        raise AssertionError("mosquitto does not listen")

    def stop(self) -> None:
        """Terminates it, as a reboot does."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(DEADLINE_S)

    def kill(self) -> None:
        """Kills it, as a power cut does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(DEADLINE_S)


@contextmanager
def broker(folder: Path, extra: str = "allow_anonymous true\n", scheme: str = "mqtt") -> Iterator[Broker]:
    made = Broker(folder, extra, scheme)
    made.start()
    try:
        yield made
    finally:
        made.kill()
