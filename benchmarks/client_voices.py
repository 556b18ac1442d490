"""Lateness of a live session while another one sends voices, which the worker computes between the steps of both.

A decoding session receives one token every 20 ms. A chunk's lateness is the time from the scheduled moment of its last
token to the arrival of its audio, less the algorithmic latency. Another session sends a new voice as soon as audio in
the last one arrives; `primed_ms` is the time this takes. Both sessions share one worker with one thread.

    python -m benchmarks.client_voices
"""

import argparse
import asyncio
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.surroundings import RESULTS_FOLDER, write_report
from demos.server_process import ServerProcess
from neucodec_streaming.client.connection import connect
from neucodec_streaming.client.events import Audio
from neucodec_streaming.config import FRAME_MS

RESULTS = RESULTS_FOLDER / "client_voices.json"
VOICE_TOKENS = (100, 250, 750)


def tokens(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << 16, count).astype(np.uint16)


async def lateness_ms(url: str, profile: str, seconds: float) -> list[float]:
    loop, frames = asyncio.get_running_loop(), round(seconds * 1000 / FRAME_MS)
    async with connect(url, kind="decode", profile=profile) as connection:
        ready = connection.ready
        window = ready.chunk_frames + ready.lookahead_frames
        begin_s = loop.time()

        async def speak() -> None:
            for frame, token in enumerate(tokens(0, frames)):
                await asyncio.sleep(begin_s + frame * FRAME_MS / 1000 - loop.time())
                await connection.send(np.array([token], np.uint16))
            await connection.end()

        speaking = asyncio.create_task(speak())
        late: list[float] = []
        async for event in connection:
            if isinstance(event, Audio):
                first = event.position // ready.output.hop // ready.chunk_frames * ready.chunk_frames
                due_s = begin_s + (first + window - 1) * FRAME_MS / 1000
                late.append((loop.time() - due_s) * 1000)
        await speaking
    return late[: len(late) - window // ready.chunk_frames - 1]  # the end flushes the last chunks at once


async def primes(url: str, profile: str, size: int) -> list[float]:
    """Sends voice after voice until cancelled; returns the milliseconds that each took."""
    took: list[float] = []
    loop = asyncio.get_running_loop()
    try:
        async with connect(url, kind="decode", profile=profile) as connection:
            while True:
                begin_s = loop.time()
                await connection.prime(tokens(1 + len(took), size))
                await connection.send(tokens(0, connection.ready.chunk_frames + connection.ready.lookahead_frames))
                async for event in connection:
                    if isinstance(event, Audio):
                        break
                took.append((loop.time() - begin_s) * 1000)
                await connection.clear()
    except asyncio.CancelledError:
        return took


async def measure(url: str, profile: str, size: int, seconds: float) -> dict[str, Any]:
    """`size` is the tokens of a voice, 0 for no second session."""
    priming = asyncio.create_task(primes(url, profile, size)) if size else None
    late = await lateness_ms(url, profile, seconds)
    row: dict[str, Any] = {"profile": profile, "voice_tokens": size, "chunks": len(late)}
    row |= {f"p{share}_ms": round(float(np.percentile(late, share)), 1) for share in (50, 99)}
    row["max_ms"] = round(max(late), 1)
    if priming is not None:
        priming.cancel()
        took = await priming
        row |= {"voices": len(took), "primed_ms": round(float(np.median(took)), 1) if took else None}
    return row


async def run(given: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    options = ("--model", given.model, "--workers", 1, "--threads", 1, "--batch-sizes", "1,2", "--max-sessions", 4)
    async with ServerProcess(*options, "--profiles", "default,low", "--max-load", 1e9) as server:
        for profile in ("default", "low"):
            for size in (0, *VOICE_TOKENS):
                rows.append(await measure(server.url, profile, size, given.seconds))
                print("  ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--model", default="nano")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    write_report(given.out, {"model": given.model, "rows": asyncio.run(run(given))})


if __name__ == "__main__":
    main()
