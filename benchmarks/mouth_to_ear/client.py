"""The client of benchmarks.mouth_to_ear, in a process whose sound devices are those of the room; prints JSON lines.
Times are time.perf_counter, one clock for all processes.

    talk URL PROFILE SECONDS       microphone -> server -> speaker; then the time of each part
    stall URL PROFILE SECONDS S N  the same, through a proxy that stalls for N seconds from S on
    barge-in URL PROFILE TOKENS N  speaks the tokens N times and interrupts itself at a random moment
"""

import asyncio
import json
import random
import sys
import time
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks.common.faulty_proxy import proxy
from neucodec_streaming.client.connection import connect
from neucodec_streaming.client.devices import Microphone, Speaker
from neucodec_streaming.client.events import Audio, Cleared
from neucodec_streaming.client.latency import ResponseTimes
from neucodec_streaming.config import FRAME_MS, INPUT_RATE, OUTPUT_RATE
from neucodec_streaming.protocol.messages import Done

MIN_S, MAX_S, PAUSE_S = 0.8, 2.0, 0.6
"""How long an utterance is heard before the interruption, and the silence after it."""


def tell(**said: Any) -> None:
    print(json.dumps(said), flush=True)


async def talk(url: str, profile: str, seconds: float) -> None:
    async with connect(url, kind="roundtrip", profile=profile, live=True) as connection:
        computing = ResponseTimes(connection.ready)
        ways: dict[str, list[float]] = {"microphone_ms": [], "computing_ms": computing.milliseconds}
        ways |= {"jitter_ms": [], "speaker_ms": []}
        chunk_ms = connection.ready.chunk_frames * FRAME_MS
        with Microphone(INPUT_RATE) as microphone, Speaker(OUTPUT_RATE, chunk_ms=chunk_ms, live=True) as speaker:

            async def send() -> None:
                async for packet in microphone:
                    await connection.send(packet)
                    computing.sent(connection.input_position, time.perf_counter())
                    ways["microphone_ms"].append(microphone.latency_ms)
                    if connection.input_position >= seconds * INPUT_RATE:
                        break
                await connection.end()

            tell(listening=True)
            done = None
            heard = 0, 0.0
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(send(), name="sender")
                async for event in connection:
                    if isinstance(event, Audio):
                        computing.received(connection.output_position, time.perf_counter())
                        ways["jitter_ms"].append(speaker.queued_seconds * 1000)
                        ways["speaker_ms"].append(speaker.latency_ms)
                        speaker.push(event.samples)
                        if not (speaker.splices or speaker.underruns):
                            heard = speaker.heard_position, time.perf_counter()
                    elif isinstance(event, Done):
                        done = event
            speaker.finish()
            await speaker.drained()
            assert done is not None
            tell(
                model=connection.ready.model,
                algorithm_ms=connection.ready.latency_ms,
                **{name: round(float(np.median(values[10:])), 1) for name, values in ways.items()},
                input_samples=done.input,
                output_samples=done.output,
                not_a_frame=done.dropped,
                microphone_lost=microphone.overflow_samples,
                underruns=speaker.underruns,
                underflows=speaker.underflows,
                skipped_ms=round(speaker.skipped_seconds * 1000),
                skips=speaker.skips,
                splices=[list(splice) for splice in speaker.splices],
                heard=heard,
            )


async def stalled_talk(url: str, profile: str, seconds: float, stall_at_s: float, stall_s: float) -> None:
    server = urlsplit(url)
    assert server.hostname is not None and server.port is not None, "the server that was started"
    async with proxy(server.hostname, server.port) as way:
        loop = asyncio.get_running_loop()
        loop.call_later(stall_at_s, way.stall)
        loop.call_later(stall_at_s + stall_s, way.resume)
        await talk(way.url, profile, seconds)


async def barge_in(url: str, profile: str, tokens: np.ndarray, times: int) -> None:
    moments = random.Random(0)
    async with connect(url, kind="decode", profile=profile) as connection:
        chunk_ms = connection.ready.chunk_frames * FRAME_MS
        with Speaker(OUTPUT_RATE, chunk_ms=chunk_ms) as speaker:
            tell(listening=True)
            for _ in range(times):
                begin = speaker.pushed_samples
                await connection.send(tokens)
                await connection.flush()
                with suppress(TimeoutError):
                    async with asyncio.timeout(moments.uniform(MIN_S, MAX_S)):
                        async for event in connection:
                            if isinstance(event, Audio):
                                speaker.push(event.samples)
                told = {"moment": time.perf_counter(), "heard": speaker.heard_position - begin}
                speaker.clear()
                await connection.clear()
                async for event in connection:  # audio in flight is of the old utterance
                    if isinstance(event, Cleared):
                        break
                tell(cleared=told)
                await asyncio.sleep(PAUSE_S)


def main() -> None:
    kind, url, profile = sys.argv[1:4]
    if kind == "talk":
        asyncio.run(talk(url, profile, float(sys.argv[4])))
    elif kind == "stall":
        asyncio.run(stalled_talk(url, profile, *map(float, sys.argv[4:7])))
    else:
        asyncio.run(barge_in(url, profile, np.fromfile(sys.argv[4], "<u2"), int(sys.argv[5])))


if __name__ == "__main__":
    main()
