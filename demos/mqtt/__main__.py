"""One speaker, three listeners, a lossy link: `python -m demos.mqtt`. Needs Mosquitto (apt-get install mosquitto).

Streams a recording in real time into two sessions at a broker, one of which repeats tokens in its frames. Three
listeners receive the tokens: one over a good link, two with QoS 0 over a link that drops a tenth of the packets and
reorders a tenth; one of these two receives the repeated tokens. Each listener's tokens are decoded and compared.
"""

import argparse
import asyncio
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from demos.command_line import needs
from demos.language_model import RECORDING
from demos.mqtt.broker import MOSQUITTO, broker
from demos.mqtt.lossy_link import Damage, lossy
from neucodec_streaming.client.commands.display import print_rows
from neucodec_streaming.client.events import Tokens
from neucodec_streaming.client.files import AudioWriter, read_audio
from neucodec_streaming.client.transfer import packets_of
from neucodec_streaming.config import INPUT_HOP, INPUT_RATE, OUTPUT_RATE
from neucodec_streaming.protocol.mqtt.address import parse_broker
from neucodec_streaming.resampler import resample
from neucodec_streaming.server.settings.fields import Settings

with needs("server,demo,mqtt"):
    from pystoi import stoi

    from neucodec_streaming.client.mqtt.listener import Listener, listen
    from neucodec_streaming.client.mqtt.session import MqttSession, open_at_broker
    from neucodec_streaming.codec import Codec, load_codec
    from neucodec_streaming.server.app import App
    from neucodec_streaming.server.mqtt.bridge import Bridge

OUT = Path("demo-output")
DAMAGE = Damage(drop=0.1, reorder=0.1)
REDUNDANCY = 5
PACKET_SAMPLES = INPUT_RATE // 10


async def main() -> None:
    if MOSQUITTO is None:
        sys.exit("the demo needs Mosquitto: apt-get install mosquitto")
    pcm = read_audio(RECORDING, INPUT_RATE)
    settings = Settings(port=0, profiles={"default": None}, batch_sizes=(1,))
    app = App(settings)
    with TemporaryDirectory() as folder, broker(Path(folder)) as running:
        bridge = Bridge(parse_broker(running.url), app.open)
        try:
            await app.start()
            await app.loaded()
            bridge.start()
            heard = await spoken(running.url, running.port, pcm)
        finally:
            await bridge.stop(settings.stop_timeout_s)
            await app.stop()
    codec = load_codec("nano")
    for name, (tokens, listener) in heard.items():
        print_rows({"listener": name, **told(codec, pcm, name, tokens, listener)}, sys.stdout)
        print()


async def spoken(url: str, port: int, pcm: np.ndarray) -> dict[str, tuple[np.ndarray, Listener]]:
    """Returns each listener's tokens, concealed ones included, and the listener, by name."""
    async with (
        lossy(port, DAMAGE, seed=1) as link,
        open_at_broker(url, "plain") as plain,
        open_at_broker(url, "repeating", redundancy=REDUNDANCY) as repeating,
        listen(url, "plain") as good,
        listen(link.url, "plain", qos=0) as lossy_one,
        listen(link.url, "repeating", qos=0) as repeated,
    ):
        listeners = {"good": good, "lossy": lossy_one, "lossy-redundant": repeated}
        following = [asyncio.create_task(tokens_of(listener, pcm.size // INPUT_HOP)) for listener in listeners.values()]
        print(f"speaking {pcm.size / INPUT_RATE:.1f} s")
        await asyncio.gather(speak(plain, pcm), speak(repeating, pcm))
        found = await asyncio.gather(*following)
    return {name: (tokens, listeners[name]) for name, tokens in zip(listeners, found, strict=True)}


async def speak(session: MqttSession, pcm: np.ndarray) -> None:
    """Sends the recording in real time."""
    loop = asyncio.get_running_loop()
    start_s = loop.time()

    async def talk() -> None:
        async for packet in packets_of(pcm[at : at + PACKET_SAMPLES] for at in range(0, pcm.size, PACKET_SAMPLES)):
            await asyncio.sleep(max(0.0, start_s + session.input_position / INPUT_RATE - loop.time()))
            await session.send(packet)
        await session.end()

    talking = asyncio.create_task(talk())
    async for _ in session:
        pass
    await talking


async def tokens_of(listener: Listener, frames: int) -> np.ndarray:
    """Returns uint16 (F,)."""
    tokens = np.zeros(frames, np.uint16)
    async for event in listener:
        if isinstance(event, Tokens):
            tokens[event.position : event.position + event.tokens.size] = event.tokens
    return tokens


def told(codec: Codec, pcm: np.ndarray, name: str, tokens: np.ndarray, listener: Listener) -> dict[str, str]:
    """Writes the decoded audio; returns its distance from the recording."""
    audio = codec.decode(tokens)
    OUT.mkdir(exist_ok=True)
    path = OUT / f"mqtt-{name}.wav"
    with AudioWriter(path, OUTPUT_RATE) as file:
        file.write(audio)
    again = resample(audio, OUTPUT_RATE, INPUT_RATE)
    size = min(pcm.size, again.size)
    loss = listener.loss
    return {
        "frames": f"{loss.frames}, lost {loss.lost_frames}, out of order {loss.reordered_frames + loss.late_frames}",
        "tokens": f"{tokens.size}, lost {loss.lost_units}, recovered {loss.recovered_units}",
        "STOI": f"{stoi(pcm[:size], again[:size], INPUT_RATE):.3f}",
        "written": str(path),
    }


if __name__ == "__main__":
    argparse.ArgumentParser(prog="mqtt", description="One speaker, three listeners, a lossy link.").parse_args()
    asyncio.run(main())
