"""A web page of another origin than the server's, without a content security policy, as on developers' own sites."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
EMPTY = b"<!doctype html><title>elsewhere</title><link rel=icon href=data:,>"


@contextmanager
def hosted_elsewhere(folder: Path | None = None, headers: Mapping[str, str] | None = None) -> Iterator[str]:
    """Serves the files in `folder`, and an empty page for every other path; yields the origin."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            file = None if folder is None else folder / self.path.partition("?")[0].lstrip("/")
            found = file is not None and file.is_file()
            body = file.read_bytes() if file is not None and found else EMPTY
            self.send_response(200)
            self.send_header("Content-Type", TYPES[file.suffix] if file is not None and found else TYPES[".html"])
            self.send_header("Content-Length", str(len(body)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="elsewhere")
        thread.start()
        try:
            yield f"http://localhost:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
