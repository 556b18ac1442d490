"""Time to first audio of text: from a language model's first token to the first audio, for each way to speak.

A stand-in model sends random tokens at an even pace (demos.speech_lm_server); the real server runs in its own process,
all over loopback. `asked_ms`, the target, is the profile's algorithmic latency plus 40 ms. The model is faster than
speech, so the profile's wait is shorter than its algorithmic latency. `exact`: every answer had 480 samples per token.
`primed`: answers start in a voice. `closed_ms`: from an interruption in mid-sentence until the model's HTTP stream was
closed.

    python -m benchmarks.speak

LiveKit Agents may not install next to the server's libraries: then start `neucodec-server` separately and run this with
--server URL --ways livekit in an environment that has it.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np

from benchmarks.common.surroundings import RESULTS_FOLDER, waited_s, write_report
from demos.language_model import Pace
from demos.server_process import ServerProcess
from demos.speech_lm_server import StandIn, stand_in
from neucodec_streaming.client.connection import connect
from neucodec_streaming.client.speech_lm import ReferenceVoice, SpeechLM, TextToSpeech
from neucodec_streaming.config import OUTPUT_HOP
from neucodec_streaming.protocol.speech_lm import SpeechLMSpec

RESULTS = RESULTS_FOLDER / "speak.json"
MARGIN_MS = 40.0
INTERRUPTION_MS = 100.0
TOKENS = 120
STORY_TOKENS = 1500
TEXT = "Good morning."
VOICE = "reference"
REFERENCE = ReferenceVoice(np.random.default_rng(1).integers(0, 65_536, 250).astype(np.uint16))
Say = Callable[[], AsyncIterator[int]]
"""Speaks TEXT: yields the samples of each piece as it arrives; closing the iterator is an interruption."""


@asynccontextmanager
async def by_client(url: str, model_url: str, profile: str, primed: bool) -> AsyncIterator[Say]:
    """Does the same as `neucodec speak`."""
    async with (
        SpeechLM(SpeechLMSpec(model_url)) as model,
        connect(url, kind="decode", profile=profile) as connection,
    ):
        speech = TextToSpeech(model, connection, REFERENCE if primed else None)
        await speech.prime()

        async def say() -> AsyncIterator[int]:
            async with aclosing(speech.say(TEXT)) as audio:
                async for samples in audio:
                    yield samples.size

        yield say


@asynccontextmanager
async def by_http(url: str, model_url: str, profile: str, primed: bool) -> AsyncIterator[Say]:
    """The server calls the model."""
    body = {"input": TEXT, "response_format": "pcm", "profile": profile, "voice": VOICE if primed else "default"}
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:

        async def say() -> AsyncIterator[int]:
            where = url.replace("ws://", "http://", 1) + "/v1/audio/speech"
            async with client.stream("POST", where, json=body) as response:
                response.raise_for_status()
                async for part in response.aiter_raw():
                    yield len(part) // 2

        yield say


@asynccontextmanager
async def by_pipecat(url: str, model_url: str, profile: str, primed: bool) -> AsyncIterator[Say]:
    from benchmarks.common.pipecat_line import speaking_line
    from neucodec_streaming.client.pipecat_tts import NeuCodecTTSService

    async with speaking_line(
        NeuCodecTTSService(SpeechLMSpec(model_url), url, profile=profile, reference=REFERENCE if primed else None), TEXT
    ) as say:
        yield say


@asynccontextmanager
async def by_livekit(url: str, model_url: str, profile: str, primed: bool) -> AsyncIterator[Say]:
    """The service's end marker of 10 ms of silence does not count."""
    from neucodec_streaming.client.livekit import NeuCodecTTS

    async with NeuCodecTTS(
        SpeechLMSpec(model_url), url, profile=profile, reference=REFERENCE if primed else None
    ) as tts:
        tts.prewarm()

        async def say() -> AsyncIterator[int]:
            async with tts.stream() as stream:
                stream.push_text(TEXT)
                stream.end_input()
                async for audio in stream:
                    samples = np.frombuffer(audio.frame.data, np.int16)
                    yield 0 if audio.is_final and not samples.any() else samples.size

        yield say


WAYS = {"speak": by_client, "/v1/audio/speech": by_http, "pipecat": by_pipecat, "livekit": by_livekit}


async def timed(say: Say, model: StandIn) -> tuple[float, int]:
    """Returns milliseconds to the first audio, and the number of samples."""
    loop, first_s, samples = asyncio.get_running_loop(), 0.0, 0
    model.moments = []
    async for size in say():
        first_s = first_s or loop.time()
        samples += size
    return (first_s - model.moments[0]) * 1000, samples


async def interrupted(say: Say, model: StandIn) -> float:
    """Returns milliseconds until the model's stream was closed."""
    model.cut_off.clear()
    audio = say()
    await anext(audio)
    asked_s = asyncio.get_running_loop().time()
    await audio.aclose()  # type: ignore[attr-defined]  # an async generator
    await asyncio.wait_for(model.cut_off.wait(), 10)
    return (model.cut_off_s - asked_s) * 1000


async def measure(
    way: str,
    primed: bool,
    url: str,
    pid: int | None,
    port: int,
    profile: str,
    tokens_per_second: float,
    repeats: int,
) -> dict[str, Any]:
    """`in_line` is the server's run-queue delay per second."""
    tokens = np.random.default_rng(0).integers(1, 65_536, TOKENS).astype(np.uint16)
    story = np.resize(tokens, STORY_TOKENS)
    async with connect(url, kind="decode", profile=profile) as connection:
        design_ms = connection.ready.latency_ms
    loop = asyncio.get_running_loop()
    begun_s, waited_before_s = loop.time(), waited_s(pid) if pid else 0.0
    pace = Pace(prompt_s=0.05, tokens_per_second=tokens_per_second, pause_every=10**9)
    firsts, exact, closed = [], True, []
    async with stand_in(tokens, pace, port=port) as model, WAYS[way](url, model.url, profile, primed) as say:
        await timed(say, model)
        for _ in range(repeats):
            first_ms, samples = await timed(say, model)
            firsts.append(first_ms)
            exact = exact and samples == TOKENS * OUTPUT_HOP
    async with stand_in(story, pace, port=port) as model, WAYS[way](url, model.url, profile, primed) as say:
        closed = [await interrupted(say, model) for _ in range(max(3, repeats // 3))]
    in_line = (waited_s(pid) - waited_before_s) / (loop.time() - begun_s) if pid else None
    return {
        "way": way,
        "primed": primed,
        "profile": profile,
        "tokens_per_second": tokens_per_second,
        "design_ms": design_ms,
        "asked_ms": design_ms + MARGIN_MS,
        "first_audio_ms": round(float(np.median(firsts)), 1),
        "worst_ms": round(max(firsts), 1),
        "exact": exact,
        "closed_ms": round(float(np.median(closed)), 1),
        "worst_closed_ms": round(max(closed), 1),
        "in_line": None if in_line is None else round(in_line, 3),
    }


async def run(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Prints rows as they are measured."""
    rows = []
    async with AsyncExitStack() as stack:
        async with stand_in(np.zeros(1, np.uint16), Pace()) as free:
            port = int(free.url.rsplit(":", 1)[1].removesuffix("/v1"))
        url, pid = given.server, None
        if url is None:
            options = ("--profiles", "default,low", "--batch-sizes", 1, "--workers", 1, "--max-load", 1e9)
            speech = ("--speech-lm-url", f"http://127.0.0.1:{port}/v1", "--max-behind-s", 1e9)
            folder = stack.enter_context(TemporaryDirectory())
            np.save(Path(folder) / f"{VOICE}.npy", REFERENCE.tokens)
            server = await stack.enter_async_context(
                ServerProcess("--model", given.model, *options, *speech, "--voices", folder)
            )
            url, pid = server.url, server.pid
        cases = product(given.ways, (False, True), ("low", "default"), (75.0, 200.0))
        for way, primed, profile, tokens_per_second in cases:
            row = await measure(way, primed, url, pid, port, profile, tokens_per_second, given.repeats)
            row["meets"] = (
                row["first_audio_ms"] <= row["asked_ms"] and row["exact"] and row["closed_ms"] <= INTERRUPTION_MS
            )
            rows.append(row)
            print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--server", metavar="URL", help="a running server, for ways other than /v1/audio/speech")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["speak", "/v1/audio/speech", "pipecat"])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    rows = asyncio.run(run(given))
    write_report(given.out, {"model": given.model, "tokens": TOKENS, "repeats": given.repeats, "rows": rows})


if __name__ == "__main__":
    main()
