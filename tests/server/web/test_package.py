"""The module as a package: packed by npm, installed, bundled for production, typed, in Chromium and in Node 22."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest

from benchmarks.browser.__main__ import served
from benchmarks.browser.chromium import CHROMIUM, browser
from benchmarks.browser.elsewhere import hosted_elsewhere
from benchmarks.mouth_to_ear.__main__ import SPEECH
from neucodec_streaming.client import encode
from neucodec_streaming.client.files import read_audio
from tests.server.hosting import hosted
from tests.streaming.engine.fake import FakeRunner

ROOT = Path(__file__).parents[3]
WEB = ROOT / "server" / "web"
APP = Path(__file__).parent / "package"
KEY = "correct-horse-battery-staple"
SECONDS = 2.0
BUNDLERS = {
    "vite": "vite build --logLevel warn",
    "webpack": "webpack ./app.js --mode production --output-path dist --output-filename app.js",
    "esbuild": "esbuild app.js --bundle --minify --format=esm --outfile=dist/app.js --log-level=warning",
}
STRICT = "tsc --strict --noEmit --target ES2022 --module esnext --moduleResolution bundler --lib ES2022,DOM example.ts"
pytestmark = [
    pytest.mark.servers,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed (Debian's npm)"),
]


def npm(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(["npm", *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> tuple[Path, list[str]]:
    """Returns the tarball and the names of its files."""
    folder = tmp_path_factory.mktemp("package") / "server" / "web"
    shutil.copytree(WEB, folder, ignore=shutil.ignore_patterns("node_modules", "types"))
    shutil.copy(ROOT / "LICENSE", folder.parents[1])
    npm("install", "--no-audit", "--no-fund", "--no-package-lock", cwd=folder)
    (told,) = json.loads(npm("pack", "--json", cwd=folder))
    return folder / told["filename"], [file["path"] for file in told["files"]]


@pytest.fixture(scope="module")
def app(packed, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("project") / "app"
    shutil.copytree(APP, folder)
    npm("install", "--no-audit", "--no-fund", "--no-package-lock", "--save", str(packed[0]), cwd=folder)
    return folder


@pytest.fixture(scope="module")
def url():
    with served("nano", "default") as url:
        yield url


@pytest.fixture(scope="module")
def sentence(url) -> str:
    """As a language model would write it."""
    speech = read_audio(SPEECH, 16_000)[: round(SECONDS * 16_000)]
    return "".join(f"<|speech_{token}|>" for token in encode(speech, url))


def test_the_package_contains_the_module_and_its_types_but_not_the_page(packed):
    files = set(packed[1])
    manifest = json.loads((WEB / "package.json").read_text())
    assert "private" not in manifest
    assert manifest["version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    modules = {name for name in files if "/" not in name and name.endswith(".js")}
    imported = {name for file in modules for name in re.findall(r'from "\./([^"]+)"', (WEB / file).read_text())}
    assert {"LICENSE", "README.md", "package.json"} <= files
    assert modules == imported | {"neucodec.js", "worklet.js"}
    assert {f"types/{name.removesuffix('.js')}.d.ts" for name in modules - {"worklet.js"}} <= files
    assert not any("page" in name or name.endswith((".html", ".css", ".flac")) for name in files)


def test_the_documented_example_is_typed(app):
    example = re.search(r"```js\n(.*?)```", (ROOT / "docs" / "browser.md").read_text(), re.DOTALL)
    assert example is not None and 'from "neucodec-streaming"' in example[1]
    types = "Frame, Message, MicrophoneOptions, Options, Playback, Resumed, SpeakerOptions"
    script = f'import type {{ {types} }} from "neucodec-streaming";\n{example[1]}\ndeclare const SERVER: string;\n'
    script += "export const totals: () => Promise<Message> = stop;\nexport const options: Options<'encode'>[] = [];\n"
    (app / "example.ts").write_text(script)
    npm("exec", "--", *STRICT.split(), cwd=app)
    (app / "example.ts").write_text(script.replace("({ samples })", "({ sample: samples })"))
    with pytest.raises(AssertionError, match="TS2339"):
        npm("exec", "--", *STRICT.split(), cwd=app)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian's chromium)")
@pytest.mark.parametrize("policy", ["script-src 'self' blob:", "script-src 'self'"])
@pytest.mark.parametrize("bundler", BUNDLERS)
async def test_a_sentence_is_played_by_a_production_bundle(app, url, sentence, bundler, policy):
    dist = app / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    npm("exec", "--", *BUNDLERS[bundler].split(), cwd=app)
    if bundler != "vite":
        shutil.copy(app / "index.html", dist)
    by_url = "blob:" not in policy
    if by_url:
        shutil.copy(app / "node_modules" / "neucodec-streaming" / "worklet.js", dist)
    with hosted_elsewhere(dist, {"Content-Security-Policy": policy}) as origin:
        async with browser() as tab:
            await tab.open(f"{origin}/index.html")
            worklet = '"worklet.js"' if by_url else "undefined"
            played = await tab.run(f"window.play({json.dumps(url)}, {json.dumps(sentence)}, {worklet})")
            assert tab.console == []
    assert played["totals"]["input"] == SECONDS * 50
    loud = np.flatnonzero(np.abs(np.array(played["heard"])) > 0.01)
    assert SECONDS * 24_000 * 0.8 < loud[-1] - loud[0] < SECONDS * 24_000 * 1.1


def test_node_22_sends_faster_than_real_time_and_reports_errors(app):
    node = str(app / "node_modules" / "node" / "bin" / "node")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    assert version.startswith("v22.")
    with hosted(FakeRunner(), api_keys=(KEY,)) as host:
        command = [node, "node.js", host.url, KEY]
        done = subprocess.run(command, cwd=app, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["tokens"] == said["totals"]["output"] == 1500
    assert (said["aborted"], said["closed"]) == ("no time", "closed")
    assert (said["unreachable"], said["wrong"]) == ("unreachable", "unauthorized")
