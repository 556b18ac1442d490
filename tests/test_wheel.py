"""A built wheel, installed elsewhere, runs server and client with the bundled model inside."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("streaming", "server", "client", "setup.py", "pyproject.toml", "README.md", "LICENSE")


def run(*command, **options) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A folder that holds the installed wheel and nothing else of ours."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("elsewhere")
    for part in PARTS:
        run("cp", "-r", str(ROOT / part), str(source))
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(source), str(source))
    (wheel,) = source.glob("*.whl")
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", "--target", str(target), str(wheel))
    return target


@pytest.fixture
def surroundings(elsewhere):
    return {**os.environ, "PYTHONPATH": str(elsewhere)}


@pytest.mark.slow
def test_the_wheel_holds_both_commands_and_every_package(elsewhere, surroundings, tmp_path):
    for command in ("neucodec", "neucodec-server"):
        assert command in run(str(elsewhere / "bin" / command), "--help", cwd=tmp_path, env=surroundings)
    installed = {path.relative_to(elsewhere) for path in elsewhere.rglob("*.py")}
    for folder, package in (("streaming", ""), ("server", "server"), ("client", "client")):
        files = {path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*.py")}
        assert {Path("neucodec_streaming", package) / file for file in files} <= installed
    model = Path("assets", "nano")
    shipped = {path.name for path in (elsewhere / "neucodec_streaming" / model).iterdir()}
    assert shipped == {path.name for path in (ROOT / "streaming" / model).iterdir()}
    assert not (elsewhere / "tests").exists()


@pytest.mark.slow
def test_speech_goes_through_the_installed_server_and_client(elsewhere, surroundings, tmp_path):
    places = run(
        sys.executable,
        *("-c", "import neucodec_streaming, neucodec_streaming.server as server; print(server.__file__)"),
        cwd=tmp_path,
        env=surroundings,
    )
    assert str(elsewhere) in places
    command = [str(elsewhere / "bin" / "neucodec-server"), "--model", "nano", "--port", "0", "--batch-sizes", "1"]
    server = subprocess.Popen(
        [*command, "--profiles", "default"], cwd=tmp_path, env=surroundings, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        ready = next(line for line in server.stdout if "ready at" in line)
        url = ready.split("ready at ")[1].split()[0]
        recording = tmp_path / "in.wav"
        soundfile.write(recording, soundfile.read(ROOT / "demos" / "data" / "speech.flac", frames=24_000)[0], 24_000)
        neucodec = str(elsewhere / "bin" / "neucodec")
        run(neucodec, "roundtrip", str(recording), "out.wav", "--server", url, cwd=tmp_path, env=surroundings)
        assert soundfile.info(tmp_path / "out.wav").frames == 24_000
    finally:
        server.terminate()
        assert server.wait(30) == 0
        server.stdout.close()
