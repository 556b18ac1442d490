"""The systemd unit: valid, hardened, and with enough time for the server's shutdown."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from neucodec_streaming.server.cli import EXIT_CONFIG, EXIT_MODEL
from neucodec_streaming.server.settings.fields import Settings
from tests.deploy.proxy import DEPLOY, shipped

NAME = "neucodec.service"
INSTALLED = "/opt/neucodec/bin/neucodec-server"


class _Repeated(dict):
    """Allows repeated keys, as in a unit: their values are joined by newlines."""

    def __setitem__(self, key, value):
        if key in self and isinstance(value, list):
            value = self[key] + value
        super().__setitem__(key, value)


@pytest.fixture(scope="module")
def service() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False, dict_type=_Repeated)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(DEPLOY / NAME)
    return parser["Service"]


@pytest.fixture
def unit(tmp_path) -> Path:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    path = tmp_path / NAME
    path.write_text(shipped(NAME, {INSTALLED: "/bin/true"}))
    return path


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=30, check=False, env={"LC_ALL": "C"}
    )


def test_systemd_accepts_the_unit_without_a_warning(unit):
    done = analyze("verify", unit)
    assert done.returncode == 0 and NAME not in done.stderr, done.stderr


def test_the_unit_has_a_low_exposure_score(unit):
    done = analyze("security", "--offline=true", "--threshold=15", unit)  # tenths; 1.4 of 10 when it was written
    assert done.returncode == 0, done.stdout.splitlines()[-1]


def test_the_stop_timeout_covers_the_servers_shutdown(service):
    settings = Settings()
    assert int(service["TimeoutStopSec"]) > settings.drain_s + settings.stop_timeout_s


def test_the_unit_does_not_restart_after_permanent_failures(service):
    assert service["RestartPreventExitStatus"].split() == [str(EXIT_CONFIG), str(EXIT_MODEL)]
    assert service["Restart"] == "on-failure" and service["ExecStart"].split()[0] == INSTALLED
