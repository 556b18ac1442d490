"""A telephone line for a speech-token agent: the server that Twilio Media Streams and similar services connect to.

    python -m demos.telephony --server ws://127.0.0.1:8765 --port 8080 --path /a-secret

The carrier opens a WebSocket for each call and sends JSON: `start`, then `media` with base64 of mu-law at 8 kHz, `mark`
when the audio before a mark has been played, `dtmf`, `stop`. It accepts `media`, `mark` and `clear`. Each call has two
sessions, which take and return the carrier's bytes unconverted. The agent here is a parrot: it greets, then repeats
what it hears; a key interrupts it. docs/telephony.md traces every message.
"""

import argparse
import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
from websockets.asyncio.server import Request, Response, Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from demos.language_model import RECORDING, recorded_tokens
from neucodec_streaming.client.connection import Connection, connect
from neucodec_streaming.client.dial import DEFAULT_URL
from neucodec_streaming.client.events import Audio, Marked, Tokens
from neucodec_streaming.client.transfer import cause_of
from neucodec_streaming.errors import StreamingError

START_S = 10.0
"""Timeout for a connection's `start`."""
FORMATS = {"audio/x-mulaw": "mulaw", "audio/x-alaw": "alaw"}
_log = logging.getLogger("telephony")


class Call:
    """`phone` is the carrier's WebSocket, `stream` its name."""

    def __init__(self, phone: ServerConnection, stream: str, ears: Connection, voice: Connection, greeting: np.ndarray):
        self._phone, self._stream = phone, stream
        self._ears, self._voice, self._greeting = ears, voice, greeting

    async def run(self, messages: AsyncIterator[dict[str, Any]]) -> None:
        """Returns when the caller hangs up. Raises any error of either session."""
        async with asyncio.TaskGroup() as tasks:
            talking = [tasks.create_task(work) for work in (self._think(), self._speak())]
            await self._listen(messages)
            for task in talking:
                task.cancel()

    async def _listen(self, messages: AsyncIterator[dict[str, Any]]) -> None:
        async for message in messages:
            match message:
                case {"event": "media", "media": {"payload": payload, "track": "inbound"}}:
                    await self._ears.send_bytes(base64.b64decode(payload, validate=True))
                case {"event": "mark", "mark": {"name": name}}:
                    _log.info("%s: the caller has heard everything before mark %s", self._stream, name)
                case {"event": "dtmf"}:
                    await self._voice.clear()
                    await self._tell("clear")
                case {"event": "stop"}:
                    return

    async def _think(self) -> None:
        """Stands for the agent: reads the tokens heard and sends the tokens to speak."""
        await self._voice.send(self._greeting)
        await self._voice.mark("greeting")
        await self._voice.flush()
        async for event in self._ears:
            if isinstance(event, Tokens):
                await self._voice.send(event.tokens)

    async def _speak(self) -> None:
        """Forwards the agent's audio; the session discards audio between a `clear` and its answer."""
        async for event in self._voice:
            if isinstance(event, Audio):
                await self._tell("media", media={"payload": base64.b64encode(event.data).decode()})
            elif isinstance(event, Marked) and event.cleared:
                _log.info("%s: interrupted before %s", self._stream, event.id)
            elif isinstance(event, Marked):
                await self._tell("mark", mark={"name": str(event.id)})

    async def _tell(self, event: str, **body: dict[str, str]) -> None:
        await self._phone.send(json.dumps({"event": event, "streamSid": self._stream, **body}))


async def messages_of(phone: ServerConnection) -> AsyncIterator[dict[str, Any]]:
    """Yields the carrier's messages. Raises ValueError for an invalid one."""
    async for text in phone:
        message = json.loads(text)
        if not isinstance(message, dict):
            raise ValueError(f"message {text[:80]!r} is not a JSON object")
        yield message


async def answer(phone: ServerConnection, server: str, greeting: np.ndarray) -> None:
    """A call that fails is closed with a reason."""
    messages = messages_of(phone)
    try:
        async with asyncio.timeout(START_S):
            start = await anext(message["start"] async for message in messages if message.get("event") == "start")
        sent = start["mediaFormat"]
        form, rate = FORMATS[sent["encoding"]], int(sent["sampleRate"])
        async with (
            connect(server, kind="encode", input_format=form, input_rate=rate, live=True) as ears,
            connect(server, kind="decode", output_format=form, output_rate=rate, raw=True) as voice,
        ):
            await Call(phone, start["streamSid"], ears, voice, greeting).run(messages)
    except StopAsyncIteration:
        return  # hung up before `start`
    except (ExceptionGroup, ConnectionClosed, StreamingError, OSError, ValueError, LookupError, TypeError) as error:
        cause = cause_of(error) if isinstance(error, ExceptionGroup) else error
        _log.warning("call failed: %r", cause)
        code = CloseCode.TRY_AGAIN_LATER if isinstance(cause, StreamingError) else CloseCode.POLICY_VIOLATION
        await phone.close(code, str(cause)[:100])


async def telephone_server(server: str, greeting: np.ndarray, host: str, port: int, path: str) -> Server:
    """`path` should be secret."""

    def check(phone: ServerConnection, request: Request) -> Response | None:
        return None if request.path == path else phone.respond(HTTPStatus.NOT_FOUND, "")

    return await serve(
        lambda phone: answer(phone, server, greeting), host, port, process_request=check, max_size=1 << 16
    )


async def run(options: argparse.Namespace) -> None:
    greeting = await recorded_tokens(options.server, options.greeting)
    async with await telephone_server(options.server, greeting, options.host, options.port, options.path):
        _log.info("taking calls at ws://%s:%s%s", options.host, options.port, options.path)
        await asyncio.Future()


def main() -> None:
    parser = argparse.ArgumentParser(prog="telephony", description="Takes calls from a carrier's media streams.")
    parser.add_argument("--server", metavar="URL", default=DEFAULT_URL, help="(%(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; a proxy adds TLS (%(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="(%(default)s)")
    parser.add_argument("--path", default="/", help="path of the WebSocket, preferably secret (%(default)s)")
    parser.add_argument("--greeting", type=Path, default=RECORDING, help="WAV or FLAC (%(default)s)")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        asyncio.run(run(parser.parse_args()))
    except StreamingError as error:
        raise SystemExit(f"telephony: {error}") from None
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
