"""Reloading of TLS files: new connections see the new certificate, open ones survive, broken files do no harm."""

import logging
import shutil
import ssl
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

from neucodec_streaming.errors import ConfigError
from neucodec_streaming.protocol.mqtt.address import parse_broker
from neucodec_streaming.server.auth.tls import Certificate
from tests.server.auth.test_keys import Clock
from tests.server.hosting import DEADLINE_S

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="certificates are made with the openssl command"
)
pytestmark = needs_openssl


def make_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """Creates a self-signed certificate for localhost with that common name, and its key."""
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -addext"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    subject = ["-subj", f"/CN={name}", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*make.split(), names, *subject], check=True, capture_output=True, timeout=30)
    return cert, key


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> dict[str, tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("certificates")
    return {name: make_pair(folder, name) for name in ("old", "new")}


class Site:
    def __init__(self, folder: Path, pair: tuple[Path, Path]) -> None:
        self.cert, self.key, self.clock = folder / "tls.crt", folder / "tls.key", Clock()
        self.install(*pair)
        self.certificate = Certificate(self.cert, self.key, self.clock)

    def install(self, cert: Path, key: Path) -> None:
        shutil.copy(cert, self.cert)
        shutil.copy(key, self.key)
        self.clock.now_s += 1


@pytest.fixture
def site(tmp_path, pairs) -> Site:
    return Site(tmp_path, pairs["old"])


@asynccontextmanager
async def echoing(certificate: Certificate):
    async def echo(socket: ServerConnection) -> None:
        async for message in socket:
            await socket.send(message)

    async with serve(echo, "127.0.0.1", 0, ssl=certificate.context) as server:
        yield next(iter(server.sockets)).getsockname()[1]


def trusting(*trusted: tuple[Path, Path], **options) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for cert, _ in trusted:
        context.load_verify_locations(cert)
    for name, value in options.items():
        setattr(context, name, value)
    return context


def connected(port: int, context: ssl.SSLContext, host: str = "localhost") -> connect:
    """`host` is the server name; the connection goes over loopback."""
    return connect(f"wss://{host}:{port}", host="127.0.0.1", ssl=context, open_timeout=DEADLINE_S, proxy=None)


def name_of(socket: ClientConnection) -> str:
    subject = socket.transport.get_extra_info("ssl_object").getpeercert()["subject"]
    return dict(pair[0] for pair in subject)["commonName"]


async def echoes(socket: ClientConnection) -> bool:
    await socket.send(b"there?")
    return await socket.recv() == b"there?"


async def test_a_replaced_certificate_applies_to_new_connections_and_open_ones_survive(site, pairs):
    async with echoing(site.certificate) as port, connected(port, trusting(*pairs.values())) as first:
        assert name_of(first) == "old" and await echoes(first)
        site.install(*pairs["new"])
        async with connected(port, trusting(*pairs.values())) as second:
            assert name_of(second) == "new" and await echoes(second)
        assert name_of(first) == "old" and await echoes(first)
        with pytest.raises(ssl.SSLCertVerificationError):
            await connected(port, trusting(pairs["old"]))


async def test_a_client_without_sni_gets_the_new_certificate_too(site, pairs):
    async with echoing(site.certificate) as port:
        site.install(*pairs["new"])
        async with connected(
            port, trusting(*pairs.values()), host="127.0.0.1"
        ) as socket:  # SNI never carries an IP address
            assert name_of(socket) == "new"


@pytest.mark.parametrize("harm", ["mismatch", "garbage", "removed"])
async def test_a_broken_pair_is_logged_once_and_the_old_certificate_stays_in_use(site, pairs, caplog, harm):
    async with echoing(site.certificate) as port:
        match harm:
            case "mismatch":
                site.install(pairs["new"][0], pairs["old"][1])
            case "garbage":
                site.cert.write_text("no certificate")
            case "removed":
                site.key.unlink()
        with caplog.at_level(logging.INFO, "server"):
            for _ in range(3):
                site.clock.now_s += 1
                async with connected(port, trusting(*pairs.values())) as socket:
                    assert name_of(socket) == "old" and await echoes(socket)
            assert [record.levelname for record in caplog.records] == ["ERROR"]
            assert "keeping the previous certificate" in caplog.text
        site.install(*pairs["new"])
        async with connected(port, trusting(*pairs.values())) as socket:
            assert name_of(socket) == "new"


async def test_a_pair_written_in_two_steps_takes_effect_once_complete(site, pairs):
    async with echoing(site.certificate) as port:
        for cert, key, name in ((pairs["new"][0], pairs["old"][1], "old"), (*pairs["new"], "new")):
            site.install(cert, key)
            async with connected(port, trusting(*pairs.values())) as socket:
                assert name_of(socket) == name


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_1_2_and_1_3_have_forward_secrecy(site, pairs, version):
    async with (
        echoing(site.certificate) as port,
        connected(port, trusting(*pairs.values(), minimum_version=version, maximum_version=version)) as socket,
    ):
        cipher, spoken, _ = socket.transport.get_extra_info("ssl_object").cipher()
        assert await echoes(socket)
        assert spoken == "TLSv1.3" if version is ssl.TLSVersion.TLSv1_3 else cipher.startswith("ECDHE-")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tls_1_1_is_refused_by_the_server(site, pairs):
    version = ssl.TLSVersion.TLSv1_1
    willing = trusting(*pairs.values(), minimum_version=version, maximum_version=version)
    willing.set_ciphers("ALL:@SECLEVEL=0")
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = willing.wrap_bio(down, up, server_hostname="localhost")
    server = site.certificate.context.wrap_bio(up, down, server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
        server.do_handshake()


def test_unusable_files_are_an_error_at_startup(tmp_path, pairs):
    (old_cert, old_key), (new_cert, _) = pairs["old"], pairs["new"]
    for cert, key in ((tmp_path / "missing", old_key), (old_cert, tmp_path / "missing"), (new_cert, old_key)):
        with pytest.raises(ConfigError, match="specify matching PEM files"):
            Certificate(cert, key, Clock())


def test_an_encrypted_key_is_an_error_and_causes_no_prompt(tmp_path, pairs):
    cert, key = pairs["old"]
    locked = tmp_path / "locked.key"
    lock = ["openssl", "ec", "-in", str(key), "-aes256", "-passout", "pass:secret", "-out", str(locked)]
    subprocess.run(lock, check=True, capture_output=True, timeout=30)
    with pytest.raises(ConfigError, match="a key without a password"):
        Certificate(cert, locked, Clock())
    with pytest.raises(ConfigError, match="a key without a password"):
        parse_broker("mqtts://broker.example", None, str(cert), str(locked)).tls_context()
