"""`neucodec mqtt-publish` and `mqtt-listen` against a real broker, and what the URL of one may be."""

import asyncio
import json
import sys

import numpy as np
import pytest
import soundfile

from neucodec_streaming.client.cli import _parser
from neucodec_streaming.client.commands.mqtt import broker_of
from neucodec_streaming.errors import ConfigError
from neucodec_streaming.protocol.mqtt.address import BrokerAddress, parse_broker
from neucodec_streaming.server.mqtt.bridge import broker_address
from neucodec_streaming.server.settings.fields import Settings
from tests.server.mqtt.broker import broker, needs_mosquitto
from tests.server.mqtt.hosting import DEADLINE_S, bridged
from tests.streaming.engine.fake import FakeRunner, audio_of, speech, tokens_of

LEVELS = [7, 20, 33, 46, 59, 72, 85, 98, 111, 124, 137, 150]


@needs_mosquitto
@pytest.mark.slow
async def test_a_file_goes_to_a_topic_and_the_topic_to_files(tmp_path):
    recording, out, wav = tmp_path / "in.wav", tmp_path / "out.tok", tmp_path / "out.wav"
    soundfile.write(recording, speech(*LEVELS), 16_000, subtype="FLOAT")
    log = tmp_path / "log"
    told = f"allow_anonymous true\nlog_dest file {log}\nlog_type subscribe\nuser root\n"
    with broker(tmp_path, told) as mosquitto:
        async with bridged(mosquitto.url, FakeRunner()) as host:
            common = ("--broker", mosquitto.url, "--json")
            listening = [
                await command("mqtt-listen", "said", out, *common),
                await command("mqtt-listen", "said", wav, *common, "--decode", "--server", host.app.url),
            ]
            async with asyncio.timeout(DEADLINE_S):
                while log.read_text().count("said/tokens") < 2:  # noqa: ASYNC110 (it is another process)
                    await asyncio.sleep(0.05)
            speaker = await command("mqtt-publish", "said", recording, *common, "--redundancy", 2)
            reports = [json.loads(await said(process)) for process in (speaker, *listening)]
    expected = tokens_of(LEVELS)
    assert np.array_equal(np.fromfile(out, "<u2"), expected)
    audio, rate = soundfile.read(wav, dtype="float32")
    assert rate == 24_000 and np.abs(audio - audio_of(expected)).max() < 1e-4
    assert reports[0]["tokens"] == len(LEVELS)
    assert reports[0]["lost_input"] == reports[1]["missing_units"] == reports[2]["missing_units"] == 0


async def command(*words) -> asyncio.subprocess.Process:
    arguments = [sys.executable, "-m", "client", *map(str, words)]
    return await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)


async def said(process: asyncio.subprocess.Process) -> str:
    out, _ = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    assert process.returncode == 0
    return out.decode()


def test_a_broker_url_has_host_port_user_and_tls():
    assert parse_broker("mqtt://host") == BrokerAddress("host", 1883)
    assert parse_broker("mqtts://u%40x:p%2F@host:9") == BrokerAddress("host", 9, True, "u@x", "p/")
    assert "p/" not in repr(parse_broker("mqtts://u:p%2F@host"))


@pytest.mark.parametrize(
    "url", ["host", "http://host", "mqtt://", "mqtt://h:x", "mqtt://h/path", "mqtt://u:secret@h?a=1"]
)
def test_an_invalid_broker_url_is_refused_without_its_password(url):
    with pytest.raises(ConfigError) as refused:
        parse_broker(url)
    assert "secret" not in str(refused.value)


def test_certificates_need_tls_and_come_in_pairs():
    with pytest.raises(ConfigError, match="mqtts"):
        parse_broker("mqtt://host", "ca.pem")
    with pytest.raises(ConfigError, match="key"):
        parse_broker("mqtts://host", None, "cert.pem")


def test_user_and_password_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("NEUCODEC_MQTT_USERNAME", "ann")
    monkeypatch.setenv("NEUCODEC_MQTT_PASSWORD", "secret")
    options = _parser().parse_args(["mqtt-listen", "kitchen", "--broker", "mqtt://host"])
    assert (broker_of(options).username, broker_of(options).password) == ("ann", "secret")
    settings = Settings(mqtt="mqtt://host", mqtt_username="ann", mqtt_password="secret")
    assert broker_address(settings) == broker_of(options)
    with pytest.raises(ConfigError, match="mqtt_password"):
        broker_address(Settings(mqtt="mqtt://ann:secret@host"))
