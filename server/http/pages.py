"""The web page: the files of server/web and the documents that it links to, read once and served from memory by name.

No I/O after `load_pages` and `load_documents`. Only exact names of these files are served, so paths cannot escape the
folder. Browsers revalidate each time (`no-cache`) by ETag. The content security policy allows loading from this server
only, and no framing by other pages.
"""

import hashlib
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

import neucodec_streaming

FOLDER = Path(__file__).parents[1] / "web"
FOLDERS = ("", "page", "samples")
"""Subfolders of FOLDER whose files are served."""
INDEX = "index.html"
ROOT = Path(__file__).resolve().parents[2]
"""The repository, or the folder that contains the installed package."""
INSTALLED = ("share/doc/neucodec-streaming", ".dist-info/licenses")
"""Folders of the documents and LICENSE of an installed package."""
MODEL_CARD = Path(neucodec_streaming.__file__).parent / "assets" / "nano" / "README.md"
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".flac": "audio/flac",
}
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " media-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Page:
    """One served file."""

    body: bytes
    content_type: str
    etag: str


def load_pages(folder: Path = FOLDER) -> dict[str, Page]:
    """The pages by path: `/`, and every file of a known type in `folder` by its path in there."""
    pages = {}
    for file in sorted(file for name in FOLDERS for file in (folder / name).glob("*")):
        if file.suffix in CONTENT_TYPES:
            pages[f"/{file.relative_to(folder).as_posix()}"] = _page(file.read_bytes(), CONTENT_TYPES[file.suffix])
    pages["/"] = pages[f"/{INDEX}"]
    return pages


def load_documents() -> dict[str, Page]:
    """README, licence, model card and docs by path, `/docs/NAME`, as plain text; missing where not installed."""
    texts = {path.name: path.read_bytes() for path in _documents()}
    texts["model-card.md"] = MODEL_CARD.read_bytes()
    return {f"/docs/{name}": _page(body, "text/plain; charset=utf-8") for name, body in texts.items()}


def _documents() -> list[Path]:
    """Of the repository, or of the installed distribution."""
    if (ROOT / "docs").is_dir():
        return [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "LICENSE"]
    try:
        files = distribution("neucodec-streaming").files or []
    except PackageNotFoundError:
        return []
    return [Path(str(file.locate())) for file in files if file.parent.as_posix().endswith(INSTALLED)]


def _page(body: bytes, content_type: str) -> Page:
    return Page(body, content_type, f'"{hashlib.sha256(body).hexdigest()[:20]}"')


def page_response(page: Page, request: Request) -> Response:
    """The page with its headers; 304 if the browser's copy is current."""
    known = {tag.strip().removeprefix("W/") for tag in ",".join(request.headers.get_all("If-None-Match")).split(",")}
    status = HTTPStatus.NOT_MODIFIED if known & {page.etag, "*"} else HTTPStatus.OK
    headers = Headers([("Date", formatdate(usegmt=True)), ("Connection", "close"), ("ETag", page.etag)])
    headers.update(HEADERS)
    if status is HTTPStatus.NOT_MODIFIED:
        return Response(status.value, status.phrase, headers)
    headers["Content-Type"] = page.content_type
    headers["Content-Length"] = str(len(page.body))
    return Response(status.value, status.phrase, headers, page.body)
