"""The Dockerfile, checked without building it: the files that it copies, its user, and its command."""

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from neucodec_streaming.server.http.responses import READY_PATH
from neucodec_streaming.server.settings.fields import DEFAULT_PORT
from neucodec_streaming.server.settings.sources import resolve

ROOT = Path(__file__).resolve().parent.parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
INSTRUCTIONS = [
    (name, rest.replace("\\\n", " "))
    for name, rest in re.findall(r"^([A-Z]+) ((?:.*\\\n)*.*)$", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.M), re.M)
]


def last_stage() -> dict[str, str]:
    """The last of each instruction in the final stage."""
    starts = [number for number, (name, _) in enumerate(INSTRUCTIONS) if name == "FROM"]
    return dict(INSTRUCTIONS[starts[-1] :])


def test_hadolint_reports_no_problem():
    hadolint = shutil.which("hadolint", path=os.path.dirname(sys.executable))
    if hadolint is None:
        pytest.skip("hadolint has no wheel for this machine")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout


def test_the_image_copies_exactly_the_files_of_the_wheel():
    copied = {
        source
        for name, rest in INSTRUCTIONS
        if name == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert all((ROOT / source).exists() for source in copied)
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert sent == copied
    packages = {"streaming", "server", "client", "docs"}  # setup.py puts pages of docs/ into the wheel
    assert packages == {source for source in copied if (ROOT / source).is_dir()}
    assert {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]} <= copied
    assert not any(fnmatch.fnmatch(source, "tests*") for source in copied)


def test_every_installation_is_constrained_by_the_tested_versions():
    runs = [rest for name, rest in INSTRUCTIONS if name == "RUN" and "pip install" in rest]
    for run in runs:
        # Not by `pip freeze`: pip cannot resolve our own extras when it constrains our package to a folder.
        assert re.findall(r"pip install -c (\S+)", run) == ["constraints.txt"]


def test_docker_gives_the_server_time_to_drain():
    settings = resolve({}, {}).settings
    command = re.search(r"^    docker run ((?:.*\\\n)*.*)", (ROOT / "docs" / "deployment.md").read_text(), re.M)
    assert command is not None
    assert int(re.search(r"--stop-timeout (\d+)", command[1])[1]) > settings.drain_s + settings.stop_timeout_s


def test_the_image_runs_the_server_as_a_numeric_non_root_user():
    image = last_stage()
    assert re.fullmatch(r"[1-9]\d{4}:[1-9]\d{4}", image["USER"])
    assert image["ENTRYPOINT"].strip('[]"') in PROJECT["project"]["scripts"]


def test_the_image_exposes_its_port_and_has_a_readiness_health_check():
    image = last_stage()
    environment = dict(pair.split("=", 1) for pair in image["ENV"].split())
    ours = {name: value for name, value in environment.items() if name.startswith("NEUCODEC_")}
    found = resolve({}, ours)
    settings = found.settings
    assert not found.unknown
    assert (settings.host, settings.port) == ("0.0.0.0", DEFAULT_PORT)
    assert image["EXPOSE"] == str(DEFAULT_PORT)
    assert f"http://127.0.0.1:{DEFAULT_PORT}{READY_PATH}" in image["HEALTHCHECK"]
