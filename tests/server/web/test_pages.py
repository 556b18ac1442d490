"""The page's files over HTTP: types, caching, the content security policy, and no other files."""

import base64
import http.client
import json
import posixpath
import re
from urllib.parse import urlsplit

import pytest
import soundfile

from neucodec_streaming.server.http.pages import CONTENT_TYPES, FOLDER, load_pages
from tests.server.hosting import hosted
from tests.server.web import worklet_js
from tests.streaming.engine.fake import FakeRunner

FILES = sorted(path for path in FOLDER.rglob("*") if path.suffix in CONTENT_TYPES and "types" not in path.parts)
SERVED = [path.relative_to(FOLDER).as_posix() for path in FILES]
OUTSIDE = [
    "/../pages.py",
    "/../../pyproject.toml",
    "/%2e%2e/pages.py",
    "/..%2fpages.py",
    "/..%5cpages.py",
    "//etc/passwd",
    "/./index.html",
    "/web/index.html",
    "/index.html/",
    "/index.html%00.js",
    "/package.json",
    "/INDEX.HTML",
    "/server/pages.py",
]


@pytest.fixture(scope="module")
def server():
    with hosted(FakeRunner()) as host:
        yield host


def get(server, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    """`path` is not escaped."""
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=10)
    try:
        connection.putrequest("GET", path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize("name", SERVED)
def test_every_file_is_served_unchanged_with_its_content_type(server, name):
    response, body = get(server, f"/{name}")
    assert response.status == 200
    assert body == (FOLDER / name).read_bytes()
    assert response.headers["Content-Type"] == CONTENT_TYPES[f".{name.rsplit('.', 1)[1]}"]
    assert int(response.headers["Content-Length"]) == len(body)


def test_the_root_is_the_page_for_any_query(server):
    index = (FOLDER / "index.html").read_bytes()
    assert get(server, "/")[1] == get(server, "/?from=mail")[1] == index


@pytest.mark.parametrize("path", OUTSIDE)
def test_other_paths_are_not_served(server, path):
    response, body = get(server, path)
    assert response.status == 404
    assert b"bad_path" in body


def test_a_current_cached_copy_gets_304(server):
    first, _ = get(server, "/page/page.js")
    assert first.headers["Cache-Control"] == "no-cache"
    tag = first.headers["ETag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again, body = get(server, "/page/page.js", If_None_Match=known)
        assert (again.status, body) == (304, b"")
        assert again.headers["ETag"] == tag
    for unknown in ('"other"', ""):
        assert get(server, "/page/page.js", If_None_Match=unknown)[0].status == 200


def test_a_changed_file_has_a_new_etag(tmp_path):
    (tmp_path / "index.html").write_text("one")
    before = load_pages(tmp_path)["/"].etag
    (tmp_path / "index.html").write_text("two")
    assert load_pages(tmp_path)["/"].etag != before


def test_the_content_security_policy_allows_only_this_server(server):
    headers = get(server, "/")[0].headers
    policy = dict(rule.strip().split(" ", 1) for rule in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert {policy[f"{kind}-src"] for kind in ("script", "style", "img", "connect", "media")} == {"'self'"}
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "microphone=(self)" in headers["Permissions-Policy"]


def test_the_page_has_no_inline_script_or_style_and_names_no_other_host():
    for path in FILES:
        if path.suffix in (".html", ".js", ".css"):
            text = path.read_text()
            assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]", text), path.name
    page = (FOLDER / "index.html").read_text()
    assert not re.search(r"<style|<script(?![^>]*\ssrc=)|\son[a-z]+=|\sstyle=|javascript:", page)


def test_every_file_that_the_page_refers_to_exists(server):
    page = (FOLDER / "index.html").read_text()
    named = set(re.findall(r'(?:src|href)="([^"#]+)"', page))
    for path in FILES:
        if path.suffix == ".js":
            here = path.parent.relative_to(FOLDER).as_posix()
            for relative in re.findall(r'from "(\.[^"]+)"|new URL\("(\.[^"]+\.js)", import', path.read_text()):
                named.add(posixpath.normpath(posixpath.join(here, relative[0] or relative[1])))
    documents = {name for name in named if name.startswith("docs/")}
    assert len(documents) == 5
    assert named - documents <= set(SERVED)
    assert {name for name in SERVED if name.endswith(".js")} <= named | {"worklet.js", *worklet_js.MODULES}


@pytest.mark.parametrize("name", ["README.md", "LICENSE", "browser.md", "protocol.md", "model-card.md"])
def test_documents_are_plain_text(server, name):
    response, body = get(server, f"/docs/{name}")
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert len(body) > 500


def test_the_page_states_the_size_of_nano():
    model = re.search(r"MODEL = (.*);", (FOLDER / "samples" / "samples.js").read_text())
    assert model is not None
    millions = json.loads(model[1])["parameters"] / 1e6
    page = re.sub(r"\s+", " ", (FOLDER / "index.html").read_text())
    assert f"<b>nano</b>: {millions:.1f} million parameters" in page


def test_every_recording_of_the_page_exists_and_is_as_long_as_its_tokens():
    entries = re.search(r"SAMPLES = (.*);", (FOLDER / "samples" / "samples.js").read_text(), re.DOTALL)
    assert entries is not None
    for entry in json.loads(entries[1]):
        seconds = len(base64.b64decode(entry["tokens"])) / 2 * 0.02
        for track in ("original", "neucodec", "opus", "codec2"):
            recording = soundfile.info(FOLDER / "samples" / f"{entry['name']}.{track}.flac")
            assert recording.frames == pytest.approx(seconds * recording.samplerate, abs=1)


def test_a_server_without_a_page_answers_404():
    with hosted(FakeRunner(), web=False) as host:
        assert get(host, "/")[0].status == 404
