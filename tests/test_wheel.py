"""The wheel, installed into fresh environments with only its declared dependencies: contents, types, name conflicts."""

import os
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
import soundfile
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("streaming", "server", "client", "docs", "setup.py", "pyproject.toml", "README.md", "LICENSE")
SITE = Path("lib", f"python{sys.version_info.major}.{sys.version_info.minor}", "site-packages")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
USERS_MODULES = {
    "modules": ("client.py", "server.py", "streaming/__init__.py"),
    "folders": ("client/app.py", "server/main.py", "streaming/live.py"),  # without __init__.py
}
USERS_SCRIPT = """\
import asyncio
import numpy as np
from neucodec_streaming import StreamConfig, load_codec
from neucodec_streaming.client import connect, encode
tokens = load_codec("nano").encoder_stream(StreamConfig(chunk_frames=5)).feed(np.zeros(16_000, np.float32))
async def main() -> None:
    async with connect("ws://127.0.0.1:8765", kind="encode") as connection:
        await connection.send(np.zeros(320, np.float32))
        async for event in connection:
            reveal_type(event)
reveal_type(tokens), reveal_type(load_codec), reveal_type(encode), asyncio.run(main())
"""


def run(*command: object, code: int = 0, **options) -> str:
    """Asserts that the status is `code`; returns both outputs."""
    text = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run([*map(str, command)], check=False, timeout=300, **text, **options)
    assert done.returncode == code, done.stdout
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def bare() -> Iterator[None]:
    """Subprocesses must not find the repository by chance."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONPATH", raising=False)
        yield


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for part in PARTS:
        run("cp", "-r", ROOT / part, source)
    run(*PIP, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", source, source)
    (built,) = source.glob("*.whl")
    return built


def declared(*extras: str) -> Iterator[Path]:
    """Yields paths in this environment of the declared dependencies, and their own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(text for extra in extras for text in project["optional-dependencies"][extra])]
    waiting, seen = [(Requirement(text), "") for text in texts], set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        found = distribution(requirement.name)
        for wanted in ("", *requirement.extras):
            if (found.name, wanted) not in seen:
                seen.add((found.name, wanted))
                waiting += [(Requirement(text), wanted) for text in found.requires or ()]
        names = {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}
        yield from (Path(found.locate_file(name)) for name in names)


def environment(folder: Path, wheel: Path, *extras: str) -> Path:
    """Returns the `bin` of a virtual environment."""
    venv.create(folder)
    for path in {*declared(*extras)}:
        (folder / SITE / path.name).symlink_to(path)
    run(*PIP, "--python", folder / "bin" / "python", "install", "--quiet", "--no-deps", "--no-index", wheel)
    return folder / "bin"


@pytest.fixture(scope="module")
def client_only(wheel, tmp_path_factory) -> Path:
    return environment(tmp_path_factory.mktemp("client"), wheel)


@pytest.fixture(scope="module")
def with_server(wheel, tmp_path_factory) -> Path:
    return environment(tmp_path_factory.mktemp("server"), wheel, "server")


@pytest.fixture(params=USERS_MODULES)
def project(request, tmp_path) -> Path:
    """The user's modules are named like our folders."""
    names = USERS_MODULES[request.param]
    modules = [name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in names]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("OWNER = 'the user'\n")
    theirs = [f"import {module}\nassert {module}.OWNER == 'the user'\n" for module in modules]
    ours = ["from neucodec_streaming import StreamConfig, server\n", "from neucodec_streaming.client import connect\n"]
    (tmp_path / "own.py").write_text("".join([*theirs, *ours, *theirs]))
    return tmp_path


@pytest.mark.slow
def test_the_wheel_is_clean_and_contains_every_file_of_the_package(wheel, client_only):
    assert run(sys.executable, "-m", "check_wheel_contents", wheel).strip().endswith("OK")
    package = client_only.parent / SITE / "neucodec_streaming"
    installed = {path.relative_to(package) for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    folders = {"streaming": Path(), "server": Path("server"), "client": Path("client")}
    ours = {
        place / path.relative_to(ROOT / folder)
        for folder, place in folders.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert installed == ours
    documents = client_only.parent / "share" / "doc" / "neucodec-streaming"
    assert {path.name for path in documents.iterdir()} == {
        *(path.name for path in (ROOT / "docs").glob("*.md")), "README.md"
    }  # fmt: skip


@pytest.mark.slow
def test_the_wheel_ships_types_for_user_code(client_only, tmp_path):
    """Runs in an environment without torch, so that mypy need not read it."""
    (tmp_path / "script.py").write_text(USERS_SCRIPT)
    mypy = (sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache")
    said = run(*mypy, "--python-executable", client_only / "python", "script.py", cwd=tmp_path)
    revealed = [line.split('"')[1] for line in said.splitlines() if "Revealed type" in line]
    event, tokens, load, encode = revealed
    assert "neucodec_streaming.client.events.Tokens" in event and "numpy.ndarray" in tokens, said
    assert load.endswith("-> neucodec_streaming.codec.Codec") and "ndarray" in encode, said


@pytest.mark.slow
def test_a_client_only_installation_names_the_missing_extra(client_only, tmp_path):
    assert "neucodec" in run(client_only / "neucodec", "--help", cwd=tmp_path)
    hint = "install the extra 'server' (in the checkout: pip install '.[server]')"
    said = run(client_only / "neucodec-server", code=2, cwd=tmp_path)
    assert hint in said and said.count("\n") == 1
    assert "'.[bulk]'" in run(client_only / "neucodec-server", "encode-files", "in", "out", code=2, cwd=tmp_path)
    said = run(client_only / "python", "-c", "from neucodec_streaming import load_codec", code=1, cwd=tmp_path)
    assert hint in said.splitlines()[-1]


@pytest.mark.slow
def test_user_modules_with_our_names_do_not_conflict(client_only, project):
    run(client_only / "python", "own.py", cwd=project)


@pytest.mark.slow
def test_the_server_starts_in_a_folder_with_modules_of_any_name(with_server, project):
    command = [with_server / "neucodec-server", "--model", "nano", "--port", "0", "--batch-sizes", "1"]
    environment = {**os.environ, "NEUCODEC_API_KEY": "of-the-client-and-not-of-the-server"}
    server = subprocess.Popen(
        [*command, "--profiles", "default"], cwd=project, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        ready = next(line for line in server.stdout if "ready at" in line)
        url = ready.split("ready at ")[1].split()[0]
        recording = soundfile.read(ROOT / "demos" / "data" / "speech.flac", frames=24_000)[0]
        soundfile.write(project / "in.wav", recording, 24_000)
        run(with_server / "neucodec", "roundtrip", "in.wav", "out.wav", "--server", url, cwd=project)
        assert soundfile.info(project / "out.wav").frames == 24_000
    finally:
        server.terminate()
        assert server.wait(30) == 0
        server.stdout.close()
