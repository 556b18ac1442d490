"""Causes of a failed connection: name, address, TLS, certificate, path, proxy and key are distinguished."""

import asyncio
import socket
import ssl as tls
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from neucodec_streaming.client.connection import connect
from neucodec_streaming.client.dial import certificates
from neucodec_streaming.errors import ConfigError, StreamingError
from tests.client.fake_server import Fault, fake_server
from tests.server.auth.test_tls import make_pair, needs_openssl


@asynccontextmanager
async def answering(payload: bytes, ssl: tls.SSLContext | None = None) -> AsyncIterator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.read(1)
            writer.write(payload)
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=ssl)
    async with server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def hanging_up() -> AsyncIterator[int]:
    """Resets every connection once data has arrived."""

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    server = await asyncio.start_server(reset, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def refusal(url: str, **options) -> str:
    """The one-line reason for a failed connection."""
    with pytest.raises(StreamingError) as refused:
        async with connect(url, **options):
            pass
    message = str(refused.value)
    assert "\n" not in message and "()" not in message
    return message


async def test_an_unresolved_name_is_distinguished_from_a_server_that_does_not_run():
    unknown = await refusal("ws://no-such-host.invalid:1")
    assert "host name 'no-such-host.invalid' cannot be resolved" in unknown
    with socket.socket() as free:
        free.bind(("127.0.0.2", 0))
        remote = await refusal(f"ws://127.0.0.2:{free.getsockname()[1]}")
    assert "check the address" in remote and "Connection refused" in remote
    for message in (unknown, remote):
        assert "neucodec-server" not in message


@needs_openssl
async def test_a_plain_port_under_tls_is_distinguished_from_a_private_certificate(tmp_path):
    certificate = make_pair(tmp_path, "private")
    context = tls.SSLContext(tls.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    async with answering(b"", context) as port:
        assert f"the certificate of wss://localhost:{port} is not trusted" in await refusal(f"wss://localhost:{port}")
        trusting = certificates(str(certificate[0]))
        assert "does not speak neucodec.v1" in await refusal(f"wss://localhost:{port}", ssl=trusting)
        assert "if the server has TLS, give wss://" in await refusal(f"ws://localhost:{port}")
        assert "does not use TLS" in await refusal(f"ws://localhost:{port}", ssl=trusting)
    async with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        assert "use a ws://" in await refusal(f"wss://127.0.0.1:{port}")
    async with hanging_up() as port:
        message = await refusal(f"wss://127.0.0.1:{port}")
        assert "if it does not use TLS, use a ws://" in message and "start it" not in message


def test_a_file_without_certificates_is_named(tmp_path):
    (tmp_path / "ca").write_text("none")
    for name in ("ca", "missing"):
        with pytest.raises(ConfigError, match=name):
            certificates(str(tmp_path / name))


async def test_a_foreign_http_server_or_a_wrong_path_is_named_without_its_page():
    page = b"HTTP/1.1 404 Not Found\r\nContent-Length: 29\r\n\r\n<html><h1>Not Found</h1></html>"
    async with answering(page) as port:
        message = await refusal(f"ws://127.0.0.1:{port}/elsewhere")
    assert message.startswith(
        f"no NeuCodec server at ws://127.0.0.1:{port}/elsewhere (HTTP 404 Not Found): check the path"
    )
    async with answering(b"SSH-2.0-OpenSSH_9.9\r\n") as port:
        assert "does not speak neucodec.v1" in await refusal(f"ws://127.0.0.1:{port}")


@pytest.mark.parametrize("url", [None, 8765, "", "ftp://h", "ws://h:x", "ws://"])
async def test_an_invalid_url_is_refused_before_connecting(url):
    assert (await refusal(url)).endswith(": use one like ws://127.0.0.1:8765")


async def test_a_missing_key_is_distinguished_from_a_wrong_one():
    async with fake_server(Fault.NEEDS_KEY) as server:
        assert (await refusal(server.url)).endswith("asks for an API key")
        assert (await refusal(server.url, api_key="x")).endswith("does not accept this API key")


async def test_a_session_path_in_the_url_is_named_as_the_mistake():
    async with fake_server(Fault.UNKNOWN_PATH) as server:
        assert (await refusal(f"{server.url}/v1/encode")).endswith("give the server's URL without '/v1/encode'")
        assert "give the server's URL" not in await refusal(server.url)
