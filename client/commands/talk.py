"""`neucodec talk`: microphone -> server -> tokens -> server -> speaker, with two sessions.

Three tasks pass data on, each waiting for the next, so a bottleneck holds back everything up to the microphone's own
queue, which counts what it loses. Sessions and jitter buffer are live: after a lost connection or a stall they drop
stale audio, and the summary says how much.
"""

import argparse
import asyncio
import json
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neucodec_streaming.client.commands.display import (
    LiveRows,
    announced,
    latency_sum,
    level_bar,
    print_rows,
    underruns_of,
)
from neucodec_streaming.client.commands.sessions import LEVELS_KEPT, TOKENS_SHOWN, open_session
from neucodec_streaming.client.commands.terminal import interruption
from neucodec_streaming.client.connection import Connection
from neucodec_streaming.client.devices import Microphone, Speaker
from neucodec_streaming.client.events import Audio, Resumed, Tokens
from neucodec_streaming.client.latency import RECENT, ResponseTimes, config_of
from neucodec_streaming.client.transfer import cause_of
from neucodec_streaming.config import FRAME_MS, INPUT_RATE, roundtrip_latency_ms


@dataclass
class Talk:
    """Both sessions, both devices, and the data passed between them."""

    encoder: Connection
    decoder: Connection
    microphone: Microphone
    speaker: Speaker
    quiet: bool = False
    spoken_samples: int = 0
    heard_samples: int = 0
    tokens: int = 0
    queued_ms: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    spoken: str = ""
    heard: str = ""
    newest: list[int] = field(default_factory=list)
    resumed: list[Resumed] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.to_tokens, self.to_audio = ResponseTimes(self.encoder.ready), ResponseTimes(self.decoder.ready)
        self._clock = asyncio.get_running_loop().time

    async def run(self, is_over: Callable[[], bool], show: Callable[[], None]) -> None:
        """Talks until `is_over`, then plays the rest. Raises the error of any of the four."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen(is_over), name="microphone to encoder")
                tasks.create_task(self._relay(), name="tokens to decoder")
                tasks.create_task(self._play(show), name="audio to speaker")
        except BaseExceptionGroup as group:
            raise cause_of(group) from None
        self.speaker.finish()
        await self.speaker.drained()

    def latencies(self) -> dict[str, float]:
        """The present latency from mouth to ear by part, in ms."""
        return {
            "microphone": self.microphone.latency_ms,
            "algorithm": roundtrip_latency_ms(config_of(self.encoder.ready), config_of(self.decoder.ready)),
            "to tokens": self.to_tokens.recent_ms,
            "to audio": self.to_audio.recent_ms,
            "jitter buffer": float(np.median(self.queued_ms)) if self.queued_ms else 0.0,
            "speaker": self.speaker.latency_ms,
        }

    async def _listen(self, is_over: Callable[[], bool]) -> None:
        async for packet in announced(self.microphone, self.quiet):
            self.spoken = (self.spoken + level_bar(packet))[-LEVELS_KEPT:]
            await self.encoder.send(packet)
            self.spoken_samples += packet.size
            self.to_tokens.sent(self.encoder.input_position, self._clock())
            if is_over():
                break
        await self.encoder.end()

    async def _relay(self) -> None:
        async for event in self.encoder:
            if isinstance(event, Resumed):
                self.resumed.append(event)
            elif isinstance(event, Tokens):
                self.to_tokens.received(self.encoder.output_position, self._clock())
                self.tokens += event.tokens.size
                self.newest = [*self.newest, *event.tokens.tolist()][-TOKENS_SHOWN:]
                await self.decoder.send(event.tokens)
                self.to_audio.sent(self.decoder.input_position, self._clock())
        await self.decoder.end()

    async def _play(self, show: Callable[[], None]) -> None:
        async for event in self.decoder:
            if isinstance(event, Resumed):
                self.resumed.append(event)
            elif isinstance(event, Audio):
                self.to_audio.received(self.decoder.output_position, self._clock())
                packets = event.samples.reshape(-1, self.decoder.ready.output.hop // 2)
                self.heard = (self.heard + "".join(map(level_bar, packets)))[-LEVELS_KEPT:]
                self.queued_ms.append(self.speaker.queued_seconds * 1000)  # jitter of the samples that have arrived
                self.speaker.push(event.samples)
                self.heard_samples += event.samples.size
                show()


async def talk(options: argparse.Namespace) -> None:
    """Talks until Ctrl-C or for --seconds."""
    stop = interruption()
    async with (
        open_session(options, "encode", live=True) as encoder,
        open_session(options, "decode", live=True) as decoder,
    ):
        chunk_ms = decoder.ready.chunk_frames * FRAME_MS
        with (
            Microphone(INPUT_RATE, options.microphone) as microphone,
            Speaker(decoder.ready.output.rate, options.speaker, chunk_ms=chunk_ms, live=True) as speaker,
            LiveRows(quiet=options.json) as rows,
        ):
            rows.watch(encoder, decoder)
            conversation = Talk(encoder, decoder, microphone, speaker, quiet=options.json)

            def is_over() -> bool:
                seconds = conversation.spoken_samples / INPUT_RATE
                return stop.is_set() or (options.seconds is not None and seconds >= options.seconds)

            def show() -> None:
                caught_up = f"{speaker.skipped_seconds:.1f} s left out, {speaker.skips} skips to the present"
                rows.show(
                    {
                        "spoken": conversation.spoken[-rows.width :],
                        "tokens": " ".join(map(str, conversation.newest))[-rows.width :],
                        "heard": conversation.heard[-rows.width :],
                        "latency": latency_sum(conversation.latencies()),
                    }
                    | ({"caught up": caught_up} if speaker.skipped_seconds else {})
                )

            await conversation.run(is_over, show)
    _print_summary(conversation, options.json)


def _print_summary(conversation: Talk, as_json: bool) -> None:
    encoder, decoder, speaker = conversation.encoder, conversation.decoder, conversation.speaker
    latencies = {name: round(ms, 1) for name, ms in conversation.latencies().items()}
    figures: dict[str, Any] = {
        "command": "talk",
        "model": encoder.ready.model,
        "profile": encoder.ready.profile,
        "microphone": conversation.microphone.name,
        "speaker": speaker.name,
        "spoken_seconds": round(conversation.spoken_samples / INPUT_RATE, 3),
        "heard_seconds": round(conversation.heard_samples / decoder.ready.output.rate, 3),
        "tokens": conversation.tokens,
        "lost_samples": conversation.microphone.overflow_samples,
        **underruns_of(speaker),
        "left_out_ms": round(speaker.skipped_seconds * 1000),
        "skips_to_present": speaker.skips,
        "resumed": [resumed.how for resumed in conversation.resumed],
        "dropped_seconds": round(sum(resumed.dropped_seconds for resumed in conversation.resumed), 3),
    }
    if as_json:
        parts = {f"{name.replace(' ', '_')}_ms": ms for name, ms in latencies.items()}
        print(json.dumps({**figures, "latency": parts}))
        return
    rows = {name.replace("_", " "): str(value) for name, value in figures.items()}
    print_rows({**rows, "latency": latency_sum(latencies)}, sys.stdout)
