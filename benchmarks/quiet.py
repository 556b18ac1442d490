"""An agent on an idle line: whether it still hears and answers after minutes of silence, and how soon.

As an agent does, speech goes to one session and its tokens to a second as the answer. One turn at once, then silence
(nothing is sent or requested), then the same turn again, for each of `--minutes`. `tokens_ms` is the time from the last
packet of a turn to its last token, `audio_ms` from the first token of the answer to its first audio. `lost` counts
connections that had to be replaced.

    python -m benchmarks.quiet --minutes 10
"""

import argparse
import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.surroundings import RESULTS_FOLDER, ROOT, write_report
from demos.server_process import ServerProcess
from neucodec_streaming.client.connection import Connection, connect
from neucodec_streaming.client.events import Audio, Event, Flushed, Resumed, Tokens
from neucodec_streaming.client.files import read_audio
from neucodec_streaming.config import INPUT_RATE

RESULTS = RESULTS_FOLDER / "quiet.json"
SPEECH = ROOT / "demos" / "data" / "speech.flac"
TURN_S = 3
PACKET_SAMPLES = INPUT_RATE // 50


async def until_flushed(connection: Connection) -> list[tuple[float, Event]]:
    """The events have their arrival times."""
    events: list[tuple[float, Event]] = []
    while not events or not isinstance(events[-1][1], Flushed):
        event = await anext(connection)
        events.append((time.perf_counter(), event))
    return events


async def turn(ears: Connection, voice: Connection, speech: np.ndarray) -> dict[str, Any]:
    hearing = asyncio.create_task(until_flushed(ears))
    for start in range(0, speech.size, PACKET_SAMPLES):
        await ears.send(speech[start : start + PACKET_SAMPLES])
        await asyncio.sleep(PACKET_SAMPLES / INPUT_RATE)
    said = time.perf_counter()
    await ears.flush()
    heard = await hearing
    tokens = np.concatenate([event.tokens for _, event in heard if isinstance(event, Tokens)])
    begun = time.perf_counter()
    answering = asyncio.create_task(until_flushed(voice))
    await voice.send(tokens)
    await voice.flush()
    answered = await answering
    return {
        "tokens": int(tokens.size),
        "tokens_ms": round((heard[-1][0] - said) * 1000),
        "audio_ms": round((next(moment for moment, event in answered if isinstance(event, Audio)) - begun) * 1000),
        "lost": sum(isinstance(event, Resumed) for _, event in [*heard, *answered]),
    }


async def measure(url: str, minutes: list[float]) -> list[dict[str, Any]]:
    speech = read_audio(SPEECH, INPUT_RATE)[: TURN_S * INPUT_RATE]
    rows = []
    async with connect(url, kind="encode", live=True) as ears, connect(url, kind="decode") as voice:
        for quiet in [0.0, *minutes]:
            await asyncio.sleep(quiet * 60)
            rows.append({"quiet_minutes": quiet, **await turn(ears, voice, speech)})
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, nargs="+", default=[10.0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    small = ("--workers", "1", "--threads", "1", "--batch-sizes", "1", "--max-sessions", "4", "--profiles", "default")
    with ServerProcess("--model", "nano", *small) as server:
        rows = asyncio.run(measure(server.url, given.minutes))
    write_report(given.out, {"rows": rows})


if __name__ == "__main__":
    main()
