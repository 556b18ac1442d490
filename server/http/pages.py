"""The web page: the files of server/web, read once and served from memory by name. No I/O after `load_pages`.

Only exact names of these files are served, so paths cannot escape the folder. Browsers revalidate each time
(`no-cache`) by ETag. The content security policy allows loading from this server only, and no framing by other pages.
"""

import hashlib
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

FOLDER = Path(__file__).parents[1] / "web"
INDEX = "index.html"
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
    """The pages by path: `/` and `/NAME` for every file of a known type in `folder`."""
    pages = {}
    for file in sorted(folder.iterdir()):
        if file.suffix in CONTENT_TYPES:
            body = file.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
            pages[f"/{file.name}"] = Page(body, CONTENT_TYPES[file.suffix], etag)
    pages["/"] = pages[f"/{INDEX}"]
    return pages


def page_response(page: Page, request: Request) -> Response:
    """The page with its headers; 304 if the browser's copy is current, no body for HEAD."""
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
