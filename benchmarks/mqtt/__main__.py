"""MQTT measured with a real Mosquitto: exactness, speech over lossy links, bits on the wire, trouble, many sessions.

    python -m benchmarks.mqtt --data FOLDER [--recordings 6] [--parts exact loss wire killed restarted many]

FOLDER holds eval/SPEAKER/*.flac. Each part replaces its results in results/mqtt.json.
"""

import argparse
import asyncio
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.common.recordings import recordings, thinned
from benchmarks.common.surroundings import RESULTS_FOLDER, surroundings
from benchmarks.mqtt.bit_rate import wire_table
from benchmarks.mqtt.failover import killed_bridges, many_sessions, restarted_brokers
from benchmarks.mqtt.loss import loss_table
from benchmarks.mqtt.testbed import Heard, bridge_process
from demos.mqtt.broker import Broker, broker
from neucodec_streaming.client.connection import connect
from neucodec_streaming.client.files import read_audio
from neucodec_streaming.client.mqtt.listener import listen
from neucodec_streaming.client.mqtt.session import open_at_broker
from neucodec_streaming.client.transfer import transfer
from neucodec_streaming.codec import load_codec
from neucodec_streaming.config import INPUT_HOP, INPUT_RATE

RESULTS = RESULTS_FOLDER / "mqtt.json"
PARTS = ("exact", "loss", "wire", "killed", "restarted", "many")
KILLS, RESTARTS = 5, 4
PACKET_SAMPLES = INPUT_RATE // 10
WIRE_S = 10
ONE_SIZE = ("--batch-sizes", "1")


async def exact(running: Broker, url: str, voices: list[np.ndarray]) -> dict[str, int]:
    """Compares tokens over MQTT with QoS 1, at a listener, with those over a WebSocket."""
    compared = equal = 0
    for number, pcm in enumerate(voices):
        packets = [pcm[start : start + PACKET_SAMPLES] for start in range(0, pcm.size, PACKET_SAMPLES)]
        direct: list[np.ndarray] = []
        async with connect(url, kind="encode") as connection:
            await transfer(connection, packets, direct.append)
        heard = Heard(pcm.size // INPUT_HOP)
        name = f"exact-{number}"
        async with open_at_broker(running.url, name) as session, listen(running.url, name) as listener:
            await transfer(session, packets, lambda tokens: None)
            async for event in listener:
                heard.take(event)
        tokens = np.concatenate(direct)
        compared += tokens.size
        equal += int((tokens == heard.tokens).sum())
    return {"tokens": compared, "equal": equal}


async def measured(part: str, voices: list[np.ndarray], sessions: int, seconds: float) -> Any:
    if part == "killed":
        return await killed_bridges(KILLS)
    if part == "restarted":
        return await restarted_brokers(RESTARTS)
    if part == "many":
        return await many_sessions(sessions, seconds)
    with TemporaryDirectory() as folder, broker(Path(folder)) as running:
        sizes = () if part == "wire" else ONE_SIZE
        async with bridge_process(running.url, "nano", *sizes) as bridge:
            if part == "exact":
                return await exact(running, bridge.url, voices)
            if part == "wire":
                return await wire_table(running, np.concatenate(voices)[: WIRE_S * INPUT_RATE])
            return await loss_table(running, load_codec("nano"), voices)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--recordings", type=int, default=6)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    voices = [read_audio(path, INPUT_RATE) for _, path in thinned(recordings(options.data), options.recordings)]
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for part in options.parts:
        found = asyncio.run(measured(part, voices, options.sessions, options.seconds))
        results[part] = {"surroundings": surroundings(), "measured": found}
        for row in found if isinstance(found, list) else [found]:
            print(part, json.dumps(row), flush=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
