"""Streaming speech synthesis: plays tokens from a language model with an uneven pace, without stutter.

    python -m demos.tts --model nano            # starts its own server; --server URL uses a running one

The language model is a stand-in (demos.language_model). Each token is sent as soon as it exists. The first audio is
held back until there is enough of it: the speaker's jitter buffer learns the lateness of audio, but knows nothing at
the first utterance. Prints how uneven the pace was, how often playback was interrupted, and the time to first sound.
"""

import argparse
import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np

from demos.language_model import RECORDING, Pace, recorded_tokens, spoken
from demos.server_process import demo_server
from neucodec_streaming.client.connection import connect
from neucodec_streaming.client.devices import Speaker
from neucodec_streaming.client.transfer import transfer
from neucodec_streaming.config import FRAME_MS, OUTPUT_RATE
from neucodec_streaming.errors import StreamingError

AHEAD_S = 0.3
"""Audio buffered before playback starts: longer than the model's pauses, since the model is hardly ahead at the first
one.
"""


class HeadStart:
    """Holds the audio back until there is enough to start with."""

    def __init__(self, speaker: Speaker, samples: int) -> None:
        self._speaker = speaker
        self._missing = samples
        self._held: list[np.ndarray] = []

    def push(self, samples: np.ndarray) -> None:
        """Queues float32 (m,)."""
        self._held.append(samples)
        self._missing -= samples.size
        if self._missing <= 0:
            self._release()

    def finish(self) -> None:
        """Plays the utterance however short."""
        self._release()
        self._speaker.finish()

    def _release(self) -> None:
        for samples in self._held:
            self._speaker.push(samples)
        self._held.clear()


async def say(url: str, tokens: np.ndarray, pace: Pace, seed: int, device: str | None) -> dict[str, float]:
    """Returns the figures of the playback."""
    loop = asyncio.get_running_loop()
    moments: list[float] = []

    async def model() -> AsyncIterator[np.ndarray]:
        async for token in spoken(tokens, pace, random.Random(seed)):
            moments.append(loop.time())
            yield token

    async with connect(url, kind="decode", output_rate=OUTPUT_RATE) as connection:
        ready = connection.ready
        with Speaker(OUTPUT_RATE, device, chunk_ms=ready.chunk_frames * FRAME_MS) as speaker:
            head_start = HeadStart(speaker, round(AHEAD_S * OUTPUT_RATE))

            async def first_sound() -> float:
                await speaker.reached(1 / OUTPUT_RATE)
                return loop.time() + speaker.latency_ms / 1000

            sounds = asyncio.create_task(first_sound(), name="first sound")
            try:
                await transfer(connection, model(), head_start.push)
                head_start.finish()
                await speaker.drained()
                first = await sounds
            finally:
                sounds.cancel()
            gaps = np.diff(moments)
            return {
                "seconds": round(speaker.pushed_samples / OUTPUT_RATE, 2),
                "tokens_per_second": round(gaps.size / float(gaps.sum()), 1),
                "longest_pause_ms": round(float(gaps.max()) * 1000),
                "breaks": speaker.underruns,
                "device_breaks": speaker.underflows,
                "latency_by_design_ms": ready.latency_ms,
                "first_token_to_first_sound_ms": round((first - moments[0]) * 1000),
            }


async def demonstrate(options: argparse.Namespace) -> dict[str, float]:
    async with demo_server(options.server, options.model) as url:
        tokens = await recorded_tokens(url, options.recording)
        pace = Pace(tokens_per_second=options.tokens_per_second)
        return await say(url, tokens, pace, options.seed, options.device)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tts", description="Tokens at the pace of a language model, to the speaker.")
    parser.add_argument("--server", metavar="URL", help="a running server (default: start one)")
    parser.add_argument("--model", default="nano", help="model of the server to start (%(default)s)")
    parser.add_argument("--recording", type=Path, default=RECORDING, help="speech to play: WAV or FLAC (%(default)s)")
    parser.add_argument("--tokens-per-second", type=float, default=75.0, help="mean rate without pauses (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the pace (%(default)s)")
    parser.add_argument("--device", help="device number or part of its name, see `neucodec devices`")
    try:
        print(json.dumps(asyncio.run(demonstrate(parser.parse_args())), indent=1))
    except StreamingError as error:
        raise SystemExit(f"tts: {error}") from None
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
