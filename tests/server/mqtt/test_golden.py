"""With QoS 1, speech through Mosquitto and the bridge equals the output over a WebSocket."""

import numpy as np
import pytest

from demos.demo import RECORDING
from neucodec_streaming.client.connection import connect
from neucodec_streaming.client.events import Audio
from neucodec_streaming.client.files import read_audio
from neucodec_streaming.client.mqtt.listener import listen
from neucodec_streaming.client.mqtt.session import open_at_broker
from neucodec_streaming.client.transfer import transfer
from tests.server.mqtt.broker import broker, needs_mosquitto
from tests.server.mqtt.hosting import bridged
from tests.server.mqtt.test_bridge import audio_in, heard, tokens_in

pytestmark = [needs_mosquitto, pytest.mark.slow]
PACKET_SAMPLES = 1600


async def test_a_voice_equals_the_websocket_path_token_for_token_and_its_speech_to_the_bit(tmp_path):
    pcm = read_audio(RECORDING, 16_000)[: 16_000 * 2]
    packets = [pcm[start : start + PACKET_SAMPLES] for start in range(0, pcm.size, PACKET_SAMPLES)]
    with broker(tmp_path) as mosquitto:
        async with bridged(mosquitto.url, batch_sizes=(1,), profiles={"default": None}, workers=1) as host:
            for kind, stream, found_in in (("encode", "tokens", tokens_in), ("roundtrip", "speech", audio_in)):
                direct: list[np.ndarray] = []
                async with connect(host.app.url, kind=kind) as connection:
                    await transfer(connection, packets, direct.append)
                async with (
                    open_at_broker(mosquitto.url, kind, kind=kind) as session,
                    listen(mosquitto.url, kind, stream) as listener,
                ):
                    for packet in packets:
                        await session.send(packet)
                    await session.end()
                    await heard(session)
                    events = await heard(listener)
                assert np.array_equal(found_in(events), np.concatenate(direct))
                assert len(direct) > 5 and any(isinstance(event, Audio) for event in events) == (kind == "roundtrip")
