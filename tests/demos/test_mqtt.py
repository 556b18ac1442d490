"""The MQTT demo: three listeners, of whom the one on a lossy link hears better with redundancy."""

import pytest

from demos.demo import RECORDING
from demos.mqtt.__main__ import spoken
from demos.mqtt.broker import broker
from neucodec_streaming.client.files import read_audio
from tests.server.mqtt.broker import needs_mosquitto
from tests.server.mqtt.hosting import bridged
from tests.streaming.engine.fake import FakeRunner


@needs_mosquitto
@pytest.mark.slow
async def test_the_good_link_loses_nothing_and_redundancy_recovers_tokens(tmp_path):
    pcm = read_audio(RECORDING, 16_000)[: 16_000 * 3]
    with broker(tmp_path) as mosquitto:
        async with bridged(mosquitto.url, FakeRunner()):
            heard = await spoken(mosquitto.url, mosquitto.port, pcm)
    loss = {name: listener.loss for name, (_, listener) in heard.items()}
    assert loss["good"].lost_units == 0
    assert loss["lossy"].lost_units > 0
    assert loss["lossy-redundant"].recovered_units > 0
    tokens = {name: tokens for name, (tokens, _) in heard.items()}
    assert (tokens["good"] != tokens["lossy"]).sum() <= loss["lossy"].lost_units
