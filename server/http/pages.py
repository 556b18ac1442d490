"""The web page: the files of server/web and the documents that it links to, read once and served from memory by name.

No I/O after `load_pages` and `load_documents`. Only a path that is the name of one of these files finds anything, so
there is nothing to climb out of. Browsers ask again each time (`no-cache`) and are told by the ETag whether what they
have is still right. The policy lets the page load from this server alone, and lets no page of others frame it.
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
"""Those of FOLDER whose files are served."""
INDEX = "index.html"
ROOT = Path(__file__).resolve().parents[2]
"""The repository, or the installed package: both hold docs/."""
DOCUMENTS = ROOT / "docs"
DOCUMENT_TYPE = "text/plain; charset=utf-8"
MODEL_CARD = Path(neucodec_streaming.__file__).parent / "assets" / "nano" / "README.md"
DISTRIBUTION = "neucodec-streaming"
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
    """One file as it is served."""

    body: bytes
    content_type: str
    etag: str


def load_pages(folder: Path = FOLDER) -> dict[str, Page]:
    """The pages by their path: `/`, and for every file of a known type in `folder` its path in there."""
    pages = {}
    for file in sorted(file for name in FOLDERS for file in (folder / name).glob("*")):
        if file.suffix in CONTENT_TYPES:
            pages[f"/{file.relative_to(folder).as_posix()}"] = _page(file.read_bytes(), CONTENT_TYPES[file.suffix])
    pages["/"] = pages[f"/{INDEX}"]
    return pages


def load_documents() -> dict[str, Page]:
    """The documents by their path, as plain text: `/docs/NAME`."""
    texts = {file.name: file.read_bytes() for file in sorted(DOCUMENTS.glob("*.md"))}
    texts["model-card.md"] = MODEL_CARD.read_bytes()
    for name in ("README.md", "LICENSE"):
        texts[name] = _of_distribution(name)
    return {f"/docs/{name}": _page(body, DOCUMENT_TYPE) for name, body in texts.items() if body}


def _of_distribution(name: str) -> bytes:
    """README.md or LICENSE: the repository's, or what the installed package holds of it."""
    if (ROOT / name).exists():
        return (ROOT / name).read_bytes()
    try:
        installed = distribution(DISTRIBUTION)
    except PackageNotFoundError:
        return b""
    text = installed.metadata["Description"] if name == "README.md" else installed.read_text(f"licenses/{name}")
    return str(text or "").encode()


def _page(body: bytes, content_type: str) -> Page:
    return Page(body, content_type, f'"{hashlib.sha256(body).hexdigest()[:20]}"')


def page_response(page: Page, request: Request) -> Response:
    """The page with its headers; 304 when the browser has it already, no body for HEAD."""
    known = {tag.strip().removeprefix("W/") for tag in ",".join(request.headers.get_all("If-None-Match")).split(",")}
    status = HTTPStatus.NOT_MODIFIED if known & {page.etag, "*"} else HTTPStatus.OK
    headers = Headers([("Date", formatdate(usegmt=True)), ("Connection", "close"), ("ETag", page.etag)])
    headers.update(HEADERS)
    if status is HTTPStatus.NOT_MODIFIED:
        return Response(status.value, status.phrase, headers)
    headers["Content-Type"] = page.content_type
    headers["Content-Length"] = str(len(page.body))
    head = getattr(request, "method", "GET") == "HEAD"  # websockets before 17 knows GET alone
    return Response(status.value, status.phrase, headers, b"" if head else page.body)
