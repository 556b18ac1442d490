"""Runs nginx or HAProxy with the shipped configuration, with only addresses and paths replaced."""

import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

DEPLOY = Path(__file__).resolve().parent.parent.parent / "deploy"
PROXIES = ("nginx", "haproxy")
REPLICAS = ("127.0.0.1:8765", "127.0.0.1:8766")


@dataclass(frozen=True)
class Proxy:
    """`trust` has the certificate that clients trust, `folder` the logs."""

    port: int
    plain_port: int
    trust: ssl.SSLContext
    folder: Path

    @property
    def url(self) -> str:
        return f"wss://localhost:{self.port}"

    @property
    def logged(self) -> str:
        return "".join(path.read_text() for path in self.folder.glob("*.log"))


@contextmanager
def running(name: str, folder: Path, replicas: list[str]) -> Iterator[Proxy]:
    """The proxy inherits our sockets, so it listens at once. A replica is "host:port"."""
    binary = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
    if binary is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install {name})")
    certificate(folder)
    with socket.create_server(("127.0.0.1", 0)) as tls, socket.create_server(("127.0.0.1", 0)) as plain:
        start = {"nginx": start_nginx, "haproxy": start_haproxy}[name]
        process = start(binary, folder, replicas, tls, plain)
        try:
            trust = ssl.create_default_context(cafile=folder / "fullchain.pem")
            yield Proxy(tls.getsockname()[1], plain.getsockname()[1], trust, folder)
            assert process.poll() is None, (folder / "stderr.log").read_text()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)


def start_nginx(binary: str, folder: Path, replicas: list[str], tls: socket.socket, plain: socket.socket):
    site = shipped(
        "nginx.conf",
        dict(zip(REPLICAS, replicas, strict=True))
        | {"listen 443": f"listen 127.0.0.1:{tls.getsockname()[1]}"}
        | {"listen 80": f"listen 127.0.0.1:{plain.getsockname()[1]}"}
        | {"/etc/ssl/neucodec": str(folder), "/var/log/nginx": str(folder)},
    )
    (folder / "site.conf").write_text(site)
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "main.conf").write_text(
        f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/main.log;\n"
        f"events {{}}\nhttp {{\n{temporary}access_log off;\ninclude {folder}/site.conf;\n}}\n"
    )
    return start(
        [binary, "-p", str(folder), "-e", str(folder / "main.log"), "-c", str(folder / "main.conf")],
        folder,
        (tls, plain),
        NGINX=f"{tls.fileno()};{plain.fileno()};",  # nginx inherits sockets through this variable
    )


def start_haproxy(binary: str, folder: Path, replicas: list[str], tls: socket.socket, plain: socket.socket):
    config = shipped(
        "haproxy.cfg",
        dict(zip(REPLICAS, replicas, strict=True))
        | {"bind :443": f"bind fd@{tls.fileno()}", "bind :80": f"bind fd@{plain.fileno()}"}
        | {"/etc/ssl/neucodec": str(folder)},
    )
    (folder / "haproxy.cfg").write_text(config)
    (folder / "global.cfg").write_text(f"global\n    log stdout format raw local0\n    stats socket {folder}/admin\n")
    return start(
        [binary, "-db", "-f", str(folder / "global.cfg"), "-f", str(folder / "haproxy.cfg")], folder, (tls, plain)
    )


def start(command: list[str], folder: Path, sockets: tuple[socket.socket, ...], **environment: str):
    with open(folder / "stderr.log", "w") as log:
        return subprocess.Popen(
            command,
            env=os.environ | environment,
            stdout=log,
            stderr=log,
            pass_fds=[each.fileno() for each in sockets],
        )


def shipped(name: str, substituted: dict[str, str]) -> str:
    """A file of deploy/ with some texts replaced, each of which must occur in it."""
    text = (DEPLOY / name).read_text()
    for old, new in substituted.items():
        assert old in text, f"{name} does not say {old!r}"
        text = text.replace(old, new)
    return text


def certificate(folder: Path) -> None:
    make = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
        " -addext subjectAltName=DNS:localhost -keyout privkey.pem -out fullchain.pem"
    )
    subprocess.run(make.split(), cwd=folder, check=True, capture_output=True, timeout=30)
    (folder / "haproxy.pem").write_text((folder / "fullchain.pem").read_text() + (folder / "privkey.pem").read_text())
