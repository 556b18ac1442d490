"""A voice agent without a language model: it listens, answers after each turn, and stops when interrupted.

    python -m demos.agent --model nano          # starts its own server; --server URL uses a running one

One session encodes the microphone into tokens; a voice activity detector finds the end of a turn. A stand-in for a
speech language model (demos.language_model) then sends tokens one by one, and another session decodes them for the
speaker. Speech during the answer interrupts it: the stand-in stops, `clear` empties server and speaker, and the agent
knows how much of its answer was heard. Use headphones, or it interrupts itself.
"""

import argparse
import asyncio
import random
import time
from collections.abc import AsyncIterable
from pathlib import Path

import numpy as np

from demos.language_model import RECORDING, Pace, recorded_tokens, spoken
from demos.server_process import demo_server
from demos.voice_activity import VoiceActivity
from neucodec_streaming.client.connection import Connection, connect
from neucodec_streaming.client.devices import Microphone, Speaker
from neucodec_streaming.client.events import Audio, Cleared, Flushed, Tokens
from neucodec_streaming.client.transfer import cause_of
from neucodec_streaming.config import FRAME_MS, INPUT_RATE, OUTPUT_RATE
from neucodec_streaming.errors import StreamingError


class Agent:
    """`ears` encodes, `voice` decodes the `answer`, uint16 (n,) tokens."""

    def __init__(self, ears: Connection, voice: Connection, speaker: Speaker, answer: np.ndarray) -> None:
        self._ears = ears
        self._voice = voice
        self._speaker = speaker
        self._answer = answer
        self._rng = random.Random(0)
        self._heard_tokens = 0
        self._answering: asyncio.Task[None] | None = None
        self._answer_begin = 0
        self._answer_asked = 0.0
        self._clears = 0  # unanswered by the server: until then, audio belongs to an old answer

    async def run(self, packets: AsyncIterable[np.ndarray]) -> None:
        """`packets` are float32 (n,) at 16 kHz. Never returns; raises any error of its parts."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(), name="tokens heard")
                tasks.create_task(self._speak(), name="speaker")
                await self._listen(packets, tasks)
        except BaseExceptionGroup as group:
            raise cause_of(group) from None

    async def _listen(self, packets: AsyncIterable[np.ndarray], tasks: asyncio.TaskGroup) -> None:
        activity, turn = VoiceActivity(), 0
        async for packet in packets:
            await self._ears.send(packet)
            for event in activity.feed(packet):
                if event == "start":
                    turn = self._heard_tokens
                    await self._interrupt()
                else:
                    tell(f"you said {self._heard_tokens - turn} tokens; answering")
                    self._answer_begin, self._answer_asked = self._speaker.pushed_samples, time.perf_counter()
                    self._answering = tasks.create_task(self._say(), name="answer")

    async def _read(self) -> None:
        """Counts tokens, which a language model would read."""
        async for event in self._ears:
            if isinstance(event, Tokens):
                self._heard_tokens += event.tokens.size

    async def _say(self) -> None:
        async for token in spoken(self._answer, Pace(), self._rng):
            await self._voice.send(token)
        await self._voice.flush()

    async def _speak(self) -> None:
        async for event in self._voice:
            if isinstance(event, Cleared):
                self._clears -= 1
            elif self._clears:
                continue
            elif isinstance(event, Audio):
                if self._speaker.pushed_samples == self._answer_begin:
                    tell(f"first audio {(time.perf_counter() - self._answer_asked) * 1000:.0f} ms later")
                self._speaker.push(event.samples)
            elif isinstance(event, Flushed):
                self._speaker.finish()

    async def _interrupt(self) -> None:
        if self._answering is None or (self._answering.done() and self._speaker.queued_seconds <= 0):
            return
        heard = self._speaker.heard_position - self._answer_begin
        self._answering.cancel()
        self._speaker.clear()
        self._clears += 1
        await self._voice.clear()
        tell(f"interrupted: {max(0, heard) / OUTPUT_RATE:.2f} s of the answer were heard")


def tell(what: str) -> None:
    print(what, flush=True)


async def converse(options: argparse.Namespace) -> None:
    async with demo_server(options.server, options.model) as url:
        answer = await recorded_tokens(url, options.answer)
        async with (
            connect(url, kind="encode", live=True) as ears,
            connect(url, kind="decode", output_rate=OUTPUT_RATE) as voice,
        ):
            chunk_ms = voice.ready.chunk_frames * FRAME_MS
            with (
                Microphone(INPUT_RATE, options.microphone) as microphone,
                Speaker(OUTPUT_RATE, options.speaker, chunk_ms=chunk_ms) as speaker,
            ):
                tell(f"listening to {microphone.name}; Ctrl-C ends")
                await Agent(ears, voice, speaker, answer).run(microphone)


def main() -> None:
    parser = argparse.ArgumentParser(prog="agent", description="Listens, answers, and can be interrupted.")
    parser.add_argument("--server", metavar="URL", help="a running server (default: start one)")
    parser.add_argument("--model", default="nano", help="model of the server to start (%(default)s)")
    parser.add_argument("--answer", type=Path, default=RECORDING, help="its answer: WAV or FLAC (%(default)s)")
    parser.add_argument("--microphone", help="device number or part of its name, see `neucodec devices`")
    parser.add_argument("--speaker", help="device number or part of its name")
    try:
        asyncio.run(converse(parser.parse_args()))
    except StreamingError as error:
        raise SystemExit(f"agent: {error}") from None
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
