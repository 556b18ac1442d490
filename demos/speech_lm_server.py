"""A stand-in for a speech language-model server: OpenAI's API with recorded tokens, at a model's uneven pace.

    python -m demos.speech_lm_server --port 8000          # then, with `neucodec-server --model nano` running:
    neucodec speak "It gives the same answer to every text." --speech-lm-url http://127.0.0.1:8000/v1

The answers have the pace of demos.language_model; tags are split across events, events across packets, and text that is
not a token occurs between them. The tokens are those of a recording, encoded by the bundled model.
"""

import argparse
import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from demos.command_line import needs
from demos.language_model import RECORDING, Pace, spoken
from neucodec_streaming.client.files import read_audio
from neucodec_streaming.config import INPUT_RATE
from neucodec_streaming.tokens import tokens_to_text

STOP = "<|SPEECH_GENERATION_END|>"
OPENING = "<|SPEECH_GENERATION_START|>"
EVENT_STREAM = "200 OK\r\nContent-Type: text/event-stream"


class StandIn:
    """Keeps the `requests`.

    `cut_off` is set whenever a client disconnects during an answer. `moments` are the times of the latest answer's
    tokens, by the loop's clock.
    """

    def __init__(self, tokens: np.ndarray, pace: Pace, seed: int) -> None:
        self.url = ""
        self.requests: list[dict[str, Any]] = []
        self.moments: list[float] = []
        self.cut_off = asyncio.Event()
        self.cut_off_s = 0.0
        self._tokens, self._pace, self._rng = tokens, pace, random.Random(seed)

    @property
    def sent_tokens(self) -> int:
        """Number of tokens sent of the latest answer."""
        return len(self.moments)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection has only one request."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
            request = json.loads(await reader.readexactly(int(fields["content-length"])))
            path = head.split(" ")[1]
            self.requests.append({**request, "path": path, "key": fields.get("authorization")})
            answering = asyncio.create_task(self._answer(writer, is_chat=path.endswith("/chat/completions")))
            leaving = asyncio.create_task(reader.read(1))
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done() or answering.exception() is not None:
                self.cut_off_s = asyncio.get_running_loop().time()
                self.cut_off.set()
            for task in (answering, leaving):
                task.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, is_chat: bool) -> None:
        writer.write(f"HTTP/1.1 {EVENT_STREAM}\r\nConnection: close\r\n\r\n".encode())
        self.moments = []
        rest = OPENING
        async for token in spoken(self._tokens, self._pace, self._rng):
            text = rest + tokens_to_text(token)
            cut = self._rng.randrange(len(text) // 2, len(text) + 1)
            now_s = asyncio.get_running_loop().time()
            await self._send(writer, _event(text[:cut], None, is_chat))
            if text[cut:]:
                await self._send(writer, _event(text[cut:], None, is_chat))
            rest = ""
            self.moments.append(now_s)
        await self._send(writer, _event(STOP, "stop", is_chat) + "data: [DONE]\n\n")

    async def _send(self, writer: asyncio.StreamWriter, text: str) -> None:
        payload = text.encode()
        cut = self._rng.randrange(len(payload))
        for part in (payload[:cut], payload[cut:]):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)


def _event(text: str, reason: str | None, is_chat: bool) -> str:
    content = {"delta": {"content": text}} if is_chat else {"text": text}
    return f"data: {json.dumps({'choices': [{'index': 0, **content, 'finish_reason': reason}]})}\n\n"


@asynccontextmanager
async def stand_in(tokens: np.ndarray, pace: Pace, seed: int = 0, port: int = 0) -> AsyncIterator[StandIn]:
    """Answers with `tokens`, uint16 (n,), on a loopback port."""
    model = StandIn(tokens, pace, seed)
    server = await asyncio.start_server(model.serve, "127.0.0.1", port)
    try:
        model.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        yield model
    finally:
        server.close()


async def run(options: argparse.Namespace) -> None:
    with needs("server"):
        from neucodec_streaming import load_codec

    tokens = load_codec("nano").encode(read_audio(options.recording, INPUT_RATE))
    pace = Pace(tokens_per_second=options.tokens_per_second)
    async with stand_in(tokens, pace, options.seed, options.port) as model:
        print(f"ready at {model.url}; Ctrl-C ends", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="speech_lm_server", description="Answers every request with a recording.")
    parser.add_argument("--recording", type=Path, default=RECORDING, help="its answer: WAV or FLAC (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="loopback port (%(default)s)")
    parser.add_argument("--tokens-per-second", type=float, default=75.0, help="mean rate without pauses (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the pace (%(default)s)")
    with suppress(KeyboardInterrupt):
        asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
