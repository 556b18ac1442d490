"""STOI of speech whose tokens crossed a lossy link with QoS 0, by damage, redundancy and concealment.

One speaker, and for each kind of damage a listener behind its own link. A frame holds five tokens, 100 ms.
"""

import asyncio
from contextlib import AsyncExitStack
from functools import partial

import numpy as np
from pystoi import stoi

from benchmarks.metrics.scores import aligned
from benchmarks.mqtt.testbed import Heard
from demos.mqtt.broker import Broker
from demos.mqtt.lossy_link import Damage, lossy
from neucodec_streaming.client.mqtt.listener import listen
from neucodec_streaming.client.mqtt.session import open_at_broker
from neucodec_streaming.codec import Codec
from neucodec_streaming.config import INPUT_HOP, INPUT_RATE, OUTPUT_HOP
from neucodec_streaming.protocol.concealment import MIDDLE_TOKEN

SHARES = (0.01, 0.05, 0.1)
KINDS = ("drop", "repeat", "reorder")
REDUNDANCIES = (0, 5)
PACKET_SAMPLES = INPUT_RATE // 10
DAMAGES = {f"{kind} {share:.0%}": Damage(**{kind: share}) for kind in KINDS for share in SHARES}
LISTEN_S = 120.0


async def heard_by_all(broker: Broker, pcm: np.ndarray, redundancy: int, seed: int) -> dict[str, Heard]:
    """Returns the tokens of the listener behind each kind of damage, and of one without."""
    frames = pcm.size // INPUT_HOP
    name = f"voice-{seed}-{redundancy}"
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(open_at_broker(broker.url, name, redundancy=redundancy))
        listeners = {}
        for place, (damage_name, damage) in enumerate({"none": Damage(), **DAMAGES}.items()):
            link = await stack.enter_async_context(lossy(broker.port, damage, 1000 * seed + place))
            listeners[damage_name] = await stack.enter_async_context(listen(link.url, name, qos=0))
        heard = {damage_name: Heard(frames) for damage_name in listeners}

        async def follow(damage_name: str) -> None:
            async for event in listeners[damage_name]:
                heard[damage_name].take(event)

        async def speak() -> None:
            for start in range(0, pcm.size, PACKET_SAMPLES):
                await session.send(pcm[start : start + PACKET_SAMPLES])
            await session.end()

        async with asyncio.timeout(LISTEN_S), asyncio.TaskGroup() as group:
            group.create_task(speak())
            for damage_name in listeners:
                group.create_task(follow(damage_name))
            async for _ in session:
                pass
    for one in heard.values():
        one.complete()
    return heard


def decoded(codec: Codec, tokens: np.ndarray) -> np.ndarray:
    decoder = codec.decoder_stream()
    return np.concatenate([decoder.feed(tokens), decoder.flush()])


def repeated(codec: Codec, tokens: np.ndarray, lost: np.ndarray) -> np.ndarray:
    known = np.maximum.accumulate(np.where(lost, -1, np.arange(tokens.size)))
    return decoded(codec, np.where(known < 0, MIDDLE_TOKEN, tokens[known]))


def silenced(codec: Codec, tokens: np.ndarray, lost: np.ndarray) -> np.ndarray:
    audio = np.zeros((tokens.size, OUTPUT_HOP), np.float32)
    audio[~lost] = decoded(codec, tokens[~lost]).reshape(-1, OUTPUT_HOP)
    return audio.reshape(-1)


def scores(codec: Codec, pcm: np.ndarray, heard: Heard) -> dict[str, float]:
    """STOI against the recording by kind of concealment, and the share of lost tokens."""
    ways = {
        "silence": partial(silenced, codec, heard.tokens, heard.lost),
        "repeated": partial(repeated, codec, heard.tokens, heard.lost),
        "concealed": partial(decoded, codec, heard.tokens),
    }
    if not heard.lost.any():
        ways = {"concealed": ways["concealed"]}
    found = {}
    for way, audio in ways.items():
        original, again = aligned(pcm, audio())
        found[way] = float(stoi(original, again, INPUT_RATE))
    return {"lost": float(heard.lost.mean()), **dict.fromkeys(("silence", "repeated"), found["concealed"]), **found}


async def loss_table(broker: Broker, codec: Codec, voices: list[np.ndarray]) -> list[dict[str, object]]:
    rows = []
    clean: dict[int, dict[str, float]] = {}
    for redundancy in REDUNDANCIES:
        found: dict[str, list[dict[str, float]]] = {}
        for number, pcm in enumerate(voices):
            heard = await heard_by_all(broker, pcm, redundancy, number)
            if number not in clean:
                clean[number] = scores(codec, pcm, heard["none"])
            for name, one in heard.items():
                same = np.array_equal(one.tokens, heard["none"].tokens) and not one.lost.any()
                found.setdefault(name, []).append(clean[number] if same else scores(codec, pcm, one))
        for name, several in found.items():
            means = {key: round(float(np.mean([one[key] for one in several])), 4) for key in several[0]}
            rows.append({"damage": name, "redundancy": redundancy, **means})
    return rows
