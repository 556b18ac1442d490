"""TLS, passwords, client certificates and access control lists of the broker, as documented in docs/mqtt.md."""

import shutil
import subprocess

import pytest

from neucodec_streaming.client.dial import Deadlines
from neucodec_streaming.client.errors import Unreachable
from neucodec_streaming.client.mqtt.listener import listen
from neucodec_streaming.client.mqtt.session import open_at_broker
from neucodec_streaming.errors import AuthError
from neucodec_streaming.protocol.mqtt.address import parse_broker
from tests.server.auth.test_tls import make_pair, needs_openssl
from tests.server.mqtt.broker import broker, needs_mosquitto
from tests.server.mqtt.hosting import bridged
from tests.server.mqtt.test_bridge import LEVELS, heard, tokens_in
from tests.streaming.engine.fake import FakeRunner, speech, tokens_of

pytestmark = [needs_mosquitto, needs_openssl]
LISTS = """
user bridge
topic readwrite neucodec/v1/#
topic readwrite hermes/#

user ann
topic readwrite neucodec/v1/ann/#

user guest
topic read neucodec/v1/ann/tokens
topic read neucodec/v1/ann/status
"""


@pytest.fixture
def guarded(tmp_path):
    cert, key = make_pair(tmp_path, "localhost")
    passwords, lists = tmp_path / "passwords", tmp_path / "lists"
    passwords.touch(0o600)
    tool = shutil.which("mosquitto_passwd")
    assert tool, "comes with mosquitto"
    for user in ("bridge", "ann", "guest"):
        subprocess.run(
            [tool, "-b", str(passwords), user, f"{user}-secret"], check=True, capture_output=True, timeout=10
        )
    lists.write_text(LISTS)
    lines = f"certfile {cert}\nkeyfile {key}\nallow_anonymous false\nuser root\n"
    lines += f"password_file {passwords}\nacl_file {lists}\n"
    with broker(tmp_path, lines, "mqtts") as running:
        yield running.url.replace("mqtts://", "mqtts://{}@"), str(cert)


def address(guarded, user: str):
    url, ca = guarded
    return parse_broker(url.format(f"{user}:{user}-secret"), ca)


async def test_a_client_with_password_and_rights_is_served_over_tls(guarded):
    async with (
        bridged(address(guarded, "bridge"), FakeRunner()),
        open_at_broker(address(guarded, "ann"), "ann") as session,
        listen(address(guarded, "guest"), "ann") as listener,
    ):
        await session.send(speech(*LEVELS))
        await session.end()
        await heard(session)
        assert (tokens_in(await heard(listener)) == tokens_of(LEVELS)).all()


async def test_clients_without_password_or_rights_are_refused(guarded):
    hurry = Deadlines(open_s=1.0)
    url, ca = guarded
    async with bridged(address(guarded, "bridge"), FakeRunner()) as host:
        with pytest.raises(AuthError):
            async with open_at_broker(parse_broker(url.format("ann:guessed"), ca), "ann", deadlines=hurry):
                pass
        with pytest.raises(Unreachable, match="certificate"):
            async with open_at_broker(url.format("ann:ann-secret"), "ann", deadlines=hurry):
                pass
        with pytest.raises(Unreachable, match="no bridge"):  # the broker drops messages that the lists forbid
            async with open_at_broker(address(guarded, "guest"), "ann", deadlines=hurry):
                pass
        assert host.bridge.sessions == []


async def test_a_broker_that_requires_a_client_certificate_gets_it(tmp_path):
    cert, key = make_pair(tmp_path, "localhost")
    mine, my_key = make_pair(tmp_path, "ann")
    lines = f"certfile {cert}\nkeyfile {key}\nuser root\n"
    lines += f"cafile {mine}\nrequire_certificate true\nuse_identity_as_username true\n"
    with broker(tmp_path, lines, "mqtts") as running:
        known = parse_broker(running.url, str(cert), str(mine), str(my_key))
        async with bridged(known, FakeRunner()), open_at_broker(known, "mine") as session:
            assert session.ready.model == "fake"
        with pytest.raises(Unreachable):
            async with open_at_broker(parse_broker(running.url, str(cert)), "mine", deadlines=Deadlines(open_s=1.0)):
                pass
