"""The telephony bridge against Twilio Media Streams messages, in the order and format of its documentation."""

import asyncio
import base64
import json
from contextlib import asynccontextmanager

import numpy as np
import pytest
from websockets.asyncio.client import connect as dial
from websockets.exceptions import ConnectionClosed, InvalidStatus

from demos.telephony import telephone_server
from neucodec_streaming.audio import pcm_to_bytes
from tests.server.hosting import hosted
from tests.streaming.engine.fake import FakeRunner, audio_of, speech

STREAM = "MZ18ad3ab5a668481ce02b83e7395059f0"
SILENCE = b"\xff" * 160
GREETING = np.full(50, 200 * 256, np.uint16)
GREETED = pcm_to_bytes(audio_of(GREETING)[:1], "mulaw")
"""A sample value that occurs only in the greeting."""
DEADLINE_S = 10.0


@pytest.fixture(scope="module")
def server():
    with hosted(FakeRunner()) as host:
        yield host


def connected() -> dict:
    return {"event": "connected", "protocol": "Call", "version": "1.0.0"}


def started(encoding: str = "audio/x-mulaw") -> dict:
    about = {
        "accountSid": "AC00000000000000000000000000000000",
        "streamSid": STREAM,
        "callSid": "CA00000000000000000000000000000000",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": encoding, "sampleRate": 8000, "channels": 1},
        "customParameters": {},
    }
    return {"event": "start", "sequenceNumber": "1", "start": about, "streamSid": STREAM}


def media(number: int, payload: bytes, track: str = "inbound") -> dict:
    body = {"track": track, "chunk": str(number), "timestamp": str(20 * number)}
    body["payload"] = base64.b64encode(payload).decode()
    return {"event": "media", "sequenceNumber": str(number + 1), "media": body, "streamSid": STREAM}


def marked(name: str) -> dict:
    return {"event": "mark", "sequenceNumber": "4", "streamSid": STREAM, "mark": {"name": name}}


def stopped() -> dict:
    return {"event": "stop", "sequenceNumber": "5", "streamSid": STREAM, "stop": {"callSid": "CA0"}}


def key() -> dict:
    return {
        "event": "dtmf",
        "streamSid": STREAM,
        "sequenceNumber": "5",
        "dtmf": {"track": "inbound_track", "digit": "1"},
    }


class Carrier:
    """The far end of a call."""

    def __init__(self, socket) -> None:
        self.socket = socket
        self.heard = b""

    async def send(self, *messages: dict) -> None:
        for message in messages:
            await self.socket.send(json.dumps(message))

    async def until(self, event: str) -> dict:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                message = json.loads(await self.socket.recv())
                assert message["streamSid"] == STREAM
                if message["event"] == "media":
                    self.heard += base64.b64decode(message["media"]["payload"])
                if message["event"] == event:
                    return message


@asynccontextmanager
async def calling(server, greeting: np.ndarray = GREETING, path: str = "/secret"):
    async with await telephone_server(server.url, greeting, "127.0.0.1", 0, "/secret") as phone:
        port = phone.sockets[0].getsockname()[1]
        async with dial(f"ws://127.0.0.1:{port}{path}") as socket:
            yield Carrier(socket)


async def test_a_caller_is_greeted_and_hears_their_own_words(server):
    async with calling(server) as carrier:
        await carrier.send(connected(), started(), media(1, SILENCE))
        assert (await carrier.until("mark"))["mark"] == {"name": "greeting"}
        greeted = len(carrier.heard)
        assert greeted >= 45 * 160
        await carrier.send(marked("greeting"))
        voice = pcm_to_bytes(speech(*[9] * 60)[::2], "mulaw")
        for number in range(60):
            await carrier.send(media(2 + number, voice[160 * number : 160 * (number + 1)]))
        while len(carrier.heard) < greeted + 30 * 160:
            await carrier.until("media")
        await carrier.send(stopped())
        with pytest.raises(ConnectionClosed):
            await carrier.until("nothing")
        assert carrier.socket.close_code == 1000
    await server.emptied()


async def test_a_phone_key_clears_the_answer_and_the_carriers_buffer(server):
    async with calling(server, np.tile(GREETING, 3600)) as carrier:  # an hour
        await carrier.send(connected(), started())
        await carrier.until("media")
        begin = asyncio.get_running_loop().time()
        await carrier.send(key())
        await carrier.until("clear")
        assert asyncio.get_running_loop().time() - begin < 5
        for number in range(60):
            await carrier.send(media(1 + number, SILENCE))
        carrier.heard = b""
        await carrier.until("media")
        assert GREETED not in carrier.heard
        await carrier.send(stopped())
    await server.emptied()


async def test_other_tracks_and_unknown_events_are_ignored(server):
    async with calling(server, GREETING[:0]) as carrier:
        await carrier.send(connected(), started(), {"event": "later"}, media(1, SILENCE, "outbound"), stopped())
        with pytest.raises(ConnectionClosed):
            await carrier.until("media")
        assert carrier.socket.close_code == 1000


@pytest.mark.parametrize(
    "message",
    [
        started("audio/opus"),
        [1],
        {"event": "start"},
        "no json",
        media(1, b"") | {"media": {"payload": "%", "track": "inbound"}},
    ],
)
async def test_invalid_calls_are_refused(server, message):
    async with calling(server) as carrier:
        if isinstance(message, dict) and message["event"] == "media":
            await carrier.send(started())
        await carrier.socket.send(message if isinstance(message, str) else json.dumps(message))
        with pytest.raises(ConnectionClosed):
            while True:
                await carrier.until("nothing")
        assert carrier.socket.close_code == 1008
    await server.emptied()


async def test_other_paths_are_refused(server):
    with pytest.raises(InvalidStatus, match="404"):
        async with calling(server, path="/"):
            pass
