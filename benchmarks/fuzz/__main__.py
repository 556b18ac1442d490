"""A million invalid frames against a real server: `python -m benchmarks.fuzz`.

`--at-once` connections at a time send malformed, truncated, reordered and hostile requests and frames from
benchmarks/fuzz/frames.py. A frame counts once the server has demonstrably read it: it answered a later ping or close,
or ended the connection. Meanwhile a well-behaved session repeats a sentence in real time; each output must be
byte-identical to the first, before the attack (with a single batch size).

Faults are: a dead server, an internal error, a connection without an answer, a traceback in the log, changed output,
memory that grows by more than MAX_GROWTH_MB in 100,000 frames, and descriptors, threads or sessions left at the end.
The exit code is then 1.
"""

import argparse
import asyncio
import random
import re
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from websockets.asyncio.client import connect
from websockets.frames import Opcode

from benchmarks.common.raw_connection import SWITCHING, frame
from benchmarks.common.recordings import load
from benchmarks.common.surroundings import RESULTS_FOLDER, ROOT, write_report
from benchmarks.fuzz.frames import Script, script
from benchmarks.hostile.__main__ import settled
from benchmarks.load.hold import Footprint
from demos.server_process import ServerProcess
from neucodec_streaming.audio import pcm_to_bytes
from neucodec_streaming.config import FRAME_MS, INPUT_HOP
from neucodec_streaming.protocol.client_session import ClientSession
from neucodec_streaming.protocol.messages import End, Flush, Flushed, encode_message, parse_server_message
from neucodec_streaming.protocol.query import session_request

RESULTS = RESULTS_FOLDER / "fuzz.json"
SENTENCE = ROOT / "demos" / "data" / "speech.flac"
ANSWER_S = 20.0
SAMPLES_EVERY = 100_000
MAX_GROWTH_MB = 1.0
LOST_KEPT = 8
"""Number of recently cut sessions that may be resumed."""
INTERNAL = ("1011", "HTTP 500")
"""Signs of a server's bug in its answers."""
_LAST = frame(b"was read", Opcode.PING)
_PONG = frame(b"was read", Opcode.PONG, mask=False)
_CLOSE = frame(b"\x03\xe8", Opcode.CLOSE)


@dataclass
class Fuzzer:
    url: str
    rng: random.Random
    frames: int = 0
    requests: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    _lost: deque[str] = field(default_factory=lambda: deque(maxlen=LOST_KEPT))

    async def run(self, until: int, at_once: int, sample: Callable[[], None]) -> None:
        """Sends until `until` frames and requests are read; calls `sample` every SAMPLES_EVERY."""
        due = SAMPLES_EVERY

        async def attacker() -> None:
            nonlocal due
            while self.count < until:
                await self.connection(script(self.rng, self._lost))
                if self.count >= due:
                    due += SAMPLES_EVERY
                    sample()

        async with asyncio.TaskGroup() as group:
            for number in range(at_once):
                group.create_task(attacker(), name=f"attacker {number}")

    @property
    def count(self) -> int:
        """Frames and requests that the server has read."""
        return self.frames + self.requests

    async def connection(self, one: Script) -> None:
        parts = urlsplit(self.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            async with asyncio.timeout(ANSWER_S):
                self.outcomes[await self._talk(one, Ear(reader), writer)] += 1
        except TimeoutError:
            self.outcomes["no answer"] += 1
            print(
                f"no answer to {one.request[0][:80]!r}, {one.frames} frames, last {one.last[:40]!r}",
                file=sys.stderr,
            )
        finally:
            writer.transport.abort()

    async def _talk(self, one: Script, ear: "Ear", writer: asyncio.StreamWriter) -> str:
        for piece in one.request:
            writer.write(piece)
            await asyncio.sleep(0)
        if not one.frames:
            _end(writer)
        is_answered = await ear.hear_until(b"\r\n\r\n")
        self.requests += 1
        if ear.status != SWITCHING or not one.frames:
            return f"HTTP {ear.status}" if is_answered else "closed"
        if not one.is_early and not await ear.hear_until(b'"type":"ready"'):
            return ear.outcome
        writer.write(b"".join(one.harmless) + _LAST)
        if not await ear.hear_until(_PONG):
            self.frames += 1
            return ear.outcome
        self.frames += len(one.harmless)
        if one.end == "abort":
            path = b"".join(one.request).split()[1].decode().partition("?")[0]
            self._lost += [f"{path}?resume={token}" for token in ear.tokens]
            return "cut off"
        writer.write(one.last if one.end == "half" else _CLOSE)
        if one.end == "half":
            _end(writer)
        await ear.hear_until(None)
        self.frames += bool(one.last)
        return ear.outcome


def _end(writer: asyncio.StreamWriter) -> None:
    """The server may have closed before."""
    with suppress(OSError):
        writer.write_eof()


class Ear:
    """Everything that the server sent on one connection."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._heard = b""

    async def hear_until(self, mark: bytes | None) -> bool:
        """Returns False if the connection ended before (also by a reset)."""
        with suppress(ConnectionError):
            while mark is None or mark not in self._heard:
                if not (data := await self._reader.read(65_536)):
                    break
                self._heard += data
        return mark is not None and mark in self._heard

    @property
    def status(self) -> str:
        return self._heard[9:12].decode(errors="replace")

    @property
    def tokens(self) -> list[str]:
        return [found.decode() for found in re.findall(rb'"token":"([^"]+)"', self._heard)]

    @property
    def outcome(self) -> str:
        """The status that the server closed with; "ended" without one."""
        return _close_status(self._heard.partition(b"\r\n\r\n")[2])


def _close_status(heard: bytes) -> str:
    at = 0
    while at + 2 <= len(heard):
        opcode, size, at = heard[at] & 15, heard[at + 1] & 127, at + 2
        if (extra := {126: 2, 127: 8}.get(size, 0)) > 0:
            size, at = int.from_bytes(heard[at : at + extra], "big"), at + extra
        if opcode == Opcode.CLOSE:
            return str(int.from_bytes(heard[at : at + size][:2], "big") or 1005)  # no status
        at += size
    return "ended"


class FuzzSpeaker:
    """The well-behaved session; `outputs` has the output of each sentence."""

    def __init__(self, url: str, sentence: bytes) -> None:
        request = session_request("roundtrip")
        self._target = url + request.target
        self._session = ClientSession(request.input, request.output)
        self._packets = [sentence[at : at + 2 * INPUT_HOP] for at in range(0, len(sentence), 2 * INPUT_HOP)]
        self.outputs: list[bytes] = []
        self.spoken = asyncio.Event()
        """Set after the first sentence."""
        self.stopping = False

    async def speak(self) -> None:
        """Repeats the sentence until `stopping`, then ends the session."""
        session = self._session
        async with connect(self._target, compression=None, max_size=None, ping_interval=None) as socket:
            session.receive(parse_server_message(await socket.recv()))
            while not self.stopping:
                sending = asyncio.create_task(self._say(socket), name="sentence")
                parts: list[bytes] = []
                while not isinstance(event := session.receive(parse_server_message(await socket.recv())), Flushed):
                    if not isinstance(event, bytes):
                        raise SystemExit(f"the well-behaved session received: {event}")
                    parts.append(event)
                await sending
                self.outputs.append(b"".join(parts))
                self.spoken.set()
            await socket.send(encode_message(session.send(End())))
            while not session.is_over:
                session.receive(parse_server_message(await socket.recv()))

    async def _say(self, socket: Any) -> None:
        begin_s = time.monotonic()
        for number, packet in enumerate(self._packets):
            await asyncio.sleep(begin_s + number * FRAME_MS / 1000 - time.monotonic())
            await socket.send(self._session.send_payload(packet))
        await socket.send(encode_message(self._session.send(Flush())))

    @property
    def changed(self) -> int:
        """How often the output differed from the first."""
        return sum(output != self.outputs[0] for output in self.outputs)


def growth_mb(samples: Sequence[dict[str, Any]]) -> float | None:
    """Memory growth in 100,000 frames: slope of a line through the samples after the first; None for too few."""
    if len(samples) < 3:
        return None
    frames, sizes = zip(*((one["count"], one["memory_mb"]) for one in samples[1:]), strict=True)
    return float(np.polyfit(frames, sizes, 1)[0]) * 100_000


async def measure(given: argparse.Namespace, log: Path) -> dict[str, Any]:
    flags = [
        "--log-level",
        "error",
        "--model",
        given.model,
        "--profiles",
        "default",
        "--batch-sizes",
        str(given.batch_size),
    ]
    flags += ["--max-attempts-per-minute", "none", "--max-load", "1e9", "--drain-s", "0"]
    sentence = pcm_to_bytes(load(SENTENCE))
    with log.open("wb") as logged:
        server = ServerProcess(*flags, log=logged)
    async with server:
        before, began_s = Footprint.of(server.pid), time.monotonic()
        speaker, fuzzer = FuzzSpeaker(server.url, sentence), Fuzzer(server.url, random.Random(given.seed))
        samples: list[dict[str, Any]] = []

        def sample() -> None:
            now = Footprint.of(server.pid)
            memory_mb = round(now.resident_bytes / 1e6, 1)
            samples.append({"count": fuzzer.count, "memory_mb": memory_mb, "fds": now.descriptors})
            print(f"{fuzzer.count:>9} read, {memory_mb} MB, {now.descriptors} descriptors", flush=True)

        async with asyncio.TaskGroup() as group:
            speaking = group.create_task(speaker.speak(), name="speaker")
            await speaker.spoken.wait()
            await fuzzer.run(given.count, given.at_once, sample)
            speaker.stopping = True
            await speaking
        seconds = time.monotonic() - began_s
        state = await settled(server, before)
        assert server.is_running, "the server died: see its log"
    return {
        "requests": fuzzer.requests,
        "frames": fuzzer.frames,
        "seconds": round(seconds, 1),
        "outcomes": dict(fuzzer.outcomes.most_common()),
        "sentences": len(speaker.outputs),
        "sentences_changed": speaker.changed,
        "samples": samples,
        "growth_mb_per_100000": growth_mb(samples),
        "server": state,
    }


def judged(result: dict[str, Any]) -> list[str]:
    growth = result["growth_mb_per_100000"]
    internal = sum(result["outcomes"].get(name, 0) for name in INTERNAL)
    silent = result["outcomes"].get("no answer", 0)
    return [
        *([f"{internal} internal errors"] if internal else []),
        *([f"{silent} connections were left without an answer"] if silent else []),
        *([f"{result['tracebacks']} tracebacks in the log"] if result["tracebacks"] else []),
        *([f"{result['sentences_changed']} sentences came out changed"] if result["sentences_changed"] else []),
        *([f"memory grows by {growth:.2f} MB in 100,000"] if growth is not None and growth > MAX_GROWTH_MB else []),
        *([f"the server still holds something: {result['server']}"] if not result["server"]["is_back"] else []),
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model", default="nano", help="a bundled name, a folder or a hub id")
    add(
        "--count",
        type=int,
        default=1_000_000,
        help="frames and requests that the server is to read (default a million)",
    )
    add("--at-once", type=int, default=32, help="connections at a time (default 32)")
    add("--batch-size", type=int, default=2, help="batch size of every step (default 2)")
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=RESULTS)
    return parser


def main(arguments: list[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        try:
            result = asyncio.run(measure(given, log))
        finally:
            logged = log.read_text()
            sys.stderr.write(logged[-10_000:])
    result["tracebacks"] = logged.count("Traceback")
    wrong = judged(result)
    for name, value in result.items():
        if name != "samples":
            print(f"{name}: {value}")
    for one in wrong:
        print("FAILED:", one)
    about = {"model": Path(given.model).name, "at_once": given.at_once, "seed": given.seed}
    write_report(given.out, about | result | {"wrong": wrong})
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
