"""The attacks of `benchmarks.hostile`: ATTACKS, each a coroutine that continues until it is cancelled.

Attacks are bounded by their number of connections and, where the server does not limit them, by a rate.
"""

import asyncio
import itertools
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

from websockets.frames import Opcode

from benchmarks.common.raw_connection import CONNECT_S, READ_BYTES, Target, block, frame, request
from neucodec_streaming.config import FRAME_MS, INPUT_HOP

PACKET_BYTES = 2 * INPUT_HOP
KILLS_PER_S = 4.0
KILLED_AFTER_S = (0.3, 1.5)
STALLED = 4
SMALL_RECEIVE_BYTES = 4096
MALFORMED_PER_S = 50.0
MALFORMED_S = 0.2
"""Pause after sending, with or without a response."""
SLOW_SOCKETS = 300
SLOW_BYTE_S = 1.0
ATTEMPTS = 10_000
ATTEMPTS_PER_S = 600.0
ATTEMPTS_AT_ONCE = 64
ATTEMPT_S = 0.5
"""Duration of a connection, with or without an answer."""
IDLE_SESSIONS = 64
"""Sessions requested to fill the server."""
AGAIN_S = 0.25

AttackConnection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Attack = Callable[[Target], Awaitable[None]]


async def every(count: int, harm: Callable[[int], Coroutine[None, None, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(harm(number), name=f"attacker {number}")


async def again_and_again(target: Target, harm: Callable[[], Coroutine[None, None, None]]) -> None:
    """Reconnects whenever the connection is closed."""
    while True:
        with suppress(OSError, TimeoutError):
            await harm()
        target.counts["ended"] += 1
        await asyncio.sleep(AGAIN_S)


@asynccontextmanager
async def unread_drain(reader: asyncio.StreamReader) -> AsyncIterator[None]:
    """Discards the server's output until the block ends."""

    async def take() -> None:
        with suppress(OSError):
            while await reader.read(READ_BYTES):
                pass

    task = asyncio.create_task(take(), name="takes")
    try:
        yield
    finally:
        task.cancel()


async def pour(target: Target, path: str, messages: Sequence[bytes]) -> None:
    """Repeats framed messages as fast as the server accepts them, and reads the output."""
    connection = await target.open(path)
    if connection is None:
        return
    reader, writer = connection
    async with unread_drain(reader):
        for message in itertools.cycle(messages):
            writer.write(message)
            await writer.drain()
            target.counts["bytes sent"] += len(message)
            await asyncio.sleep(0)


async def kill(target: Target) -> None:
    rng = random.Random(0)

    async def one(number: int) -> None:
        pid = os.fork()
        if pid == 0:
            stream_until_killed(target)
        target.children.add(pid)
        await asyncio.sleep(rng.uniform(*KILLED_AFTER_S))
        target.kill(pid)

    async with asyncio.TaskGroup() as group:
        for number in itertools.count():
            group.create_task(one(number), name=f"victim {number}")
            await asyncio.sleep(1 / KILLS_PER_S)


def stream_until_killed(target: Target) -> None:
    """A child process. Never returns."""
    try:
        with socket.create_connection((target.host, target.port), CONNECT_S) as peer:
            peer.sendall(request("/v1/roundtrip", target.name))
            begin_s = time.monotonic()
            for number in itertools.count():
                start = number * PACKET_BYTES % (len(target.speech) - PACKET_BYTES)
                time.sleep(max(0.0, begin_s + number * FRAME_MS / 1000 - time.monotonic()))
                peer.sendall(frame(target.speech[start : start + PACKET_BYTES]))
                peer.setblocking(False)
                with suppress(BlockingIOError):
                    peer.recv(READ_BYTES)
                peer.settimeout(CONNECT_S)
    finally:
        os._exit(1)


async def stall(target: Target) -> None:
    """Sessions that send as fast as possible, and never read."""
    blocks = {"/v1/decode": target.seconds_of("decode"), "/v1/encode": [block(['{"type":"mark","id":1}'])]}

    async def one(path: str) -> None:
        connection = await target.open(path, SMALL_RECEIVE_BYTES)
        if connection is None:
            return
        reader, writer = connection
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        for message in itertools.cycle(blocks[path]):
            writer.write(message)
            await writer.drain()
            target.counts["bytes sent"] += len(message)

    paths = list(blocks)
    await every(STALLED, lambda number: again_and_again(target, partial(one, paths[number % len(paths)])))


async def flood(target: Target) -> None:
    """A decoding and an encoding session with endless input at full speed."""
    kinds = ("decode", "encode")
    messages = {kind: target.seconds_of(kind) for kind in kinds}
    await every(
        len(kinds),
        lambda number: again_and_again(target, partial(pour, target, f"/v1/{kinds[number]}", messages[kinds[number]])),
    )


async def controls(target: Target) -> None:
    packet = bytes(PACKET_BYTES)
    blocks = [
        block([*64 * ['{"type":"clear"}'], packet]),
        block([*64 * ['{"type":"flush"}'], packet]),
        block([*64 * ['{"type":"mark","id":1}'], packet]),
        block([packet, '{"type":"flush"}', '{"type":"clear"}']),
        frame(b"", Opcode.PING) * 8192,
    ]
    await every(
        len(blocks), lambda number: again_and_again(target, partial(pour, target, "/v1/encode", [blocks[number]]))
    )


async def tiny(target: Target) -> None:
    """Sessions with messages of one sample, one token or nothing, at full speed."""
    blocks = [
        ("/v1/encode", block([b"\0\0"])),
        ("/v1/decode", block([b"\0\0"])),
        ("/v1/encode", block([b""])),
        ("/v1/encode", frame(b"", Opcode.BINARY, fin=False) + frame(b"", Opcode.CONT, fin=False) * 8192),
    ]
    await every(
        len(blocks),
        lambda number: again_and_again(target, partial(pour, target, blocks[number][0], [blocks[number][1]])),
    )


MALFORMED = (
    frame(bytes(262_146)),
    frame(bytes(600_000)),
    b"\x82\xff" + b"\x7f" + 7 * b"\xff" + bytes(4),
    b"\x82\xff" + 8 * b"\xff" + bytes(4),
    frame(b"\0"),
    frame(b"\0", mask=False),
    frame("{"),
    frame("[" * 100_000),
    frame('{"type":"sing"}'),
    frame('{"type":"mark","id":' + "9" * 100_000 + "}"),
    frame(b"\xff\xfe", Opcode.TEXT),
    frame(b"", Opcode.CONT),
    b"\x89\xfe\x00\xc8" + bytes(204),  # a ping of 200 bytes
    frame(b"\x03", Opcode.CLOSE),
    b"\xf2\x80" + bytes(4),
    b"\x83\x80" + bytes(4),
    frame('{"type":"end"}') + frame(bytes(PACKET_BYTES)),
    os.urandom(4096),
)


async def malformed(target: Target) -> None:
    """Sessions that start regularly and then send invalid frames."""
    await paced(target, MALFORMED_PER_S, partial(_send_malformed, target))


async def _send_malformed(target: Target, number: int) -> None:
    connection = await target.open(("/v1/encode", "/v1/decode", "/v1/roundtrip")[number % 3])
    if connection is None:
        return
    reader, writer = connection
    writer.write(MALFORMED[number % len(MALFORMED)])
    with suppress(TimeoutError, OSError):
        async with asyncio.timeout(MALFORMED_S):
            while await reader.read(READ_BYTES):
                pass
    target.drop(writer)


async def paced(target: Target, per_s: float, harm: Callable[[int], Coroutine[None, None, None]]) -> None:
    """Limits attackers to ATTEMPTS_AT_ONCE at once and ATTEMPTS in all."""
    room = asyncio.Semaphore(ATTEMPTS_AT_ONCE)
    begin_s = time.monotonic()

    async def one(number: int) -> None:
        try:
            await harm(number)
        except TimeoutError:
            target.counts["no answer"] += 1
        except OSError:
            target.counts["reset"] += 1
        finally:
            room.release()
            target.counts["attempts"] += 1

    async with asyncio.TaskGroup() as group:
        for number in range(ATTEMPTS):
            await asyncio.sleep(max(0.0, begin_s + number / per_s - time.monotonic()))
            await room.acquire()
            group.create_task(one(number), name=f"attempt {number}")


async def slowloris(target: Target) -> None:
    """Connections that send a request byte by byte without end."""
    asked = request("/v1/roundtrip", target.name)[:-2]

    async def one() -> None:
        _, writer = await target.connect()
        try:
            for position in range(len(asked)):
                writer.write(asked[position : position + 1])
                await writer.drain()
                await asyncio.sleep(SLOW_BYTE_S)
        finally:
            target.drop(writer)

    async def spread(number: int) -> None:
        await asyncio.sleep(SLOW_BYTE_S * number / SLOW_SOCKETS)
        await again_and_again(target, one)

    await every(SLOW_SOCKETS, spread)


async def attempts(target: Target) -> None:
    """Connections to a full server, most with invalid requests; none is accepted."""
    for _ in range(IDLE_SESSIONS):
        if await target.open("/v1/encode") is None:
            break
        target.counts["idle sessions"] += 1
    asked = (
        request("/v1/roundtrip", target.name),  # 503: full
        request("/v1/sing", target.name),
        request("/v1/encode?input_rate=5", target.name),
        request("/v1/encode", target.name, headers=("Accept: */*",)),
        request("/v1/encode", target.name, headers=("Upgrade: websocket", "AttackConnection: Upgrade")),
        request("/v1/encode", target.name, headers=("Cookie: " + "x" * 20_000,)),
        b"POST /v1/encode HTTP/1.1\r\nContent-Length: 9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),  # a TLS greeting
        os.urandom(512) + b"\r\n\r\n",
        b"",
    )

    async def one(number: int) -> None:
        reader, writer = await target.connect()
        try:
            async with asyncio.timeout(ATTEMPT_S):
                if question := asked[number % len(asked)]:
                    writer.write(question)
                    await target.status(reader)
                else:
                    target.counts["left at once"] += 1
        finally:
            target.drop(writer)

    await paced(target, ATTEMPTS_PER_S, one)


ATTACKS: dict[str, Attack] = {
    "kill": kill,
    "stall": stall,
    "flood": flood,
    "controls": controls,
    "tiny": tiny,
    "malformed": malformed,
    "slowloris": slowloris,
    "attempts": attempts,
}
