"""Bits a second on the wire by QoS, tokens a frame and redundancy: a live voice, one listener for each.

MQTT's bytes are counted at the listener's link in both directions, TCP segments by the kernel; each has 52 bytes of
IPv4 and TCP headers with timestamps.
"""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

import numpy as np

from demos.mqtt.broker import Broker
from demos.mqtt.lossy_link import Damage, LossyLink, lossy
from neucodec_streaming.client.mqtt.listener import listen
from neucodec_streaming.client.mqtt.session import MqttSession, open_at_broker
from neucodec_streaming.client.transfer import packets_of
from neucodec_streaming.config import INPUT_HOP, INPUT_RATE, TOKENS_PER_SECOND

HEADER_BYTES = 52
WAYS = ((0, 5, 0), (0, 5, 5), (1, 5, 0), (0, 25, 0), (0, 25, 25), (1, 25, 0))
"""QoS, minimum tokens in a frame, repeated tokens."""
PACKET_SAMPLES = INPUT_RATE // 10
DEADLINE_S = 120.0


@dataclass
class LinkTraffic:
    mqtt_bytes: int
    segments: int

    @classmethod
    def of(cls, link: LossyLink) -> "LinkTraffic":
        return cls(sum(link.mqtt_bytes.values()), link.segments)


async def _one(broker: Broker, number: int, pcm: np.ndarray) -> dict[str, object]:
    qos, tokens, redundancy = WAYS[number]
    name = f"wire-{number}"
    seconds = pcm.size // INPUT_HOP / TOKENS_PER_SECOND
    async with AsyncExitStack() as stack:
        up = await stack.enter_async_context(lossy(broker.port, Damage()))
        down = await stack.enter_async_context(lossy(broker.port, Damage()))
        session = await stack.enter_async_context(
            open_at_broker(up.url, name, qos=qos, redundancy=redundancy, packet_frames=tokens)
        )
        listener = await stack.enter_async_context(listen(down.url, name, qos=qos))
        await asyncio.sleep(1.0)  # without statuses and acknowledgements of the opening
        before_up, before = LinkTraffic.of(up), LinkTraffic.of(down)
        speaking = asyncio.create_task(_speak(session, pcm))
        heard = 0
        async for event in listener:
            heard += event.tokens.size if hasattr(event, "tokens") else 0
            after_up, after = LinkTraffic.of(up), LinkTraffic.of(down)
        await speaking
    return {
        "qos": qos,
        "tokens": tokens,
        "redundancy": redundancy,
        "heard": heard,
        **_rates("", before, after, seconds),
        **_rates("audio_up_", before_up, after_up, seconds),
    }


def _rates(prefix: str, before: LinkTraffic, after: LinkTraffic, seconds: float) -> dict[str, float]:
    mqtt = after.mqtt_bytes - before.mqtt_bytes
    headers = (after.segments - before.segments) * HEADER_BYTES
    rates = {"mqtt_kbit_s": mqtt, "tcp_ip_kbit_s": mqtt + headers}
    return {prefix + name: round(8 * count / seconds / 1000, 2) for name, count in rates.items()}


async def _speak(session: MqttSession, pcm: np.ndarray) -> None:
    """At the pace of a microphone."""
    loop = asyncio.get_running_loop()
    start_s = loop.time()

    async def talk() -> None:
        packets = [pcm[start : start + PACKET_SAMPLES] for start in range(0, pcm.size, PACKET_SAMPLES)]
        async for packet in packets_of(packets):
            await asyncio.sleep(max(0.0, start_s + session.input_position / INPUT_RATE - loop.time()))
            await session.send(packet)
        await session.end()

    talking = asyncio.create_task(talk())
    async for _ in session:
        pass
    await talking


async def wire_table(broker: Broker, pcm: np.ndarray) -> list[dict[str, object]]:
    async with asyncio.timeout(DEADLINE_S):
        return list(await asyncio.gather(*(_one(broker, number, pcm) for number in range(len(WAYS)))))
