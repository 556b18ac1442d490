"""What the wire costs: messages a second through the server, and through a bare `websockets` server beside it.

Ours has the whole protocol and the whole engine over runners whose step takes constant time and gives zeros: everything
that it does for a message is left, and nothing that the model does. The bare one takes the same messages and sends one
of the size of a chunk's output for every chunk of 20 ms packets. Each has a process of its own, with the same event
loop; this process is the client of both, in turns. Packets go up in rounds, one on every connection, and `--ahead`
rounds may be under way before all that is owed has come down: so the servers are never idle for long, and read packets
by ones and twos, as they read those of live clients. They are framed beforehand, so that the client holds nobody up.

`rate` is messages a second, in and out together; `cpu_us` the server's processor time for a message. Of the time,
`busy` is the server's share on a processor (in cores), `in_line` that in line for one, `client` the client's share. The
ratio of rates is that of the servers where both were busy and the client was not; the ratio of processor time does not
depend on the client. `asgi` is our server as an application of uvicorn's, and `asgi_cpu_ratio` what a message takes of
the processor there, in multiples of our own listener. `model` is the rate with the real model, which is what its steps
allow.

A step takes no longer than giving up the interpreter does (`--step-us 0`): in a longer one the loop would work
undisturbed, and larger batches would gather. Needs /proc, that is Linux.

    python -m benchmarks.wire --turns 5
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Frame, Opcode

from benchmarks.common.processes import family
from benchmarks.common.surroundings import RESULTS_FOLDER, write_report
from benchmarks.latency import needed_packets
from benchmarks.wire.servers import CONFIG, Traffic, WireServer, asgi, bare, hosted, load_constant, loop_factory, ours
from neucodec_streaming.engine.engine import STAGES
from neucodec_streaming.protocol.messages import End, encode_message
from neucodec_streaming.server.model import load_engines, worker_count
from neucodec_streaming.server.settings.fields import Settings

RESULTS = RESULTS_FOLDER / "wire.json"
MIN_RATIO = 0.6
"""The target: the least share of the bare server's rate."""
TURN_S = 120.0
OURS, ASGI, BARE, MODEL = "ours", "asgi", "bare", "model"
MEASURED = ("rate", "cpu_us", "busy", "in_line", "client")


def owed(kind: str, packets: int) -> list[int]:
    """Frames of output that a session of `kind` must have given once it has 0, 1, ... `packets` packets."""
    chunk, frames, found = CONFIG.chunk_frames, 0, []
    for number in range(packets + 1):
        frames += chunk * (needed_packets(kind, CONFIG, frames + chunk) <= number)
        found.append(frames)
    return found


class Line(asyncio.Protocol):
    """One connection: packets go up, and what comes down is counted, and told to `take`.

    From `ready` to the last message it reads the frames itself, which takes less of the processors that it shares with
    the server than a client's library.
    """

    def __init__(self, socket: ClientConnection, traffic: Traffic, take: Callable[[int], None]) -> None:
        self._socket, self._take = socket, take
        self._transport = socket.transport
        self._frame = Frame(Opcode.BINARY, bytes(traffic.packet_bytes)).serialize(mask=True)
        self._frame_bytes = traffic.frame_bytes
        self._unread = bytearray()
        self._last: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.sent = self.frames = self.messages = 0
        self._transport.set_protocol(self)

    def send(self) -> None:
        """One packet. No drain is waited for: what may be under way is bounded by the rounds."""
        self._transport.write(self._frame)
        self.sent += 1

    def end(self) -> None:
        """After the last packet."""
        self._transport.write(Frame(Opcode.TEXT, encode_message(End()).encode()).serialize(mask=True))

    async def receive(self) -> None:
        """Until the server says that what came was all. Exits when it was not."""
        last = await self._last
        if self.frames != self.sent:
            raise SystemExit(f"{self.sent} packets were answered by {self.frames} frames of output, then {last!r}")

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while (size := self._header_size()) and len(self._unread) >= (end := size + self._length):
            opcode, payload = self._unread[0] & 0x0F, self._unread[size:end]
            del self._unread[:end]
            if opcode != Opcode.BINARY:
                self._transport.set_protocol(self._socket)  # the closing handshake is the library's
                self._socket.data_received(bytes(self._unread))
                self._last.set_result(payload.decode(errors="replace"))
                return
            frames = len(payload) // self._frame_bytes
            self.messages += 1
            self.frames += frames
            self._take(frames)

    def connection_lost(self, error: Exception | None) -> None:
        self._last.set_result("nothing")
        self._socket.connection_lost(error)

    def _header_size(self) -> int:
        """Bytes before the payload of the next frame, which is `_length` long; 0: they are not there yet."""
        if len(self._unread) < 2:
            return 0
        self._length, size = self._unread[1], 2
        if self._length >= 126:
            size = 4 if self._length == 126 else 10
            if len(self._unread) < size:
                return 0
            self._length = int.from_bytes(self._unread[2:size])
        return size


class Rounds:
    """In each round a packet goes up on every line, `ahead` rounds before all that is owed must have come down.

    The lines begin in the first rounds, a chunk's worth of them, so that from then on as many have a chunk complete in
    every round. `owed_frames`: of one line, by its packets.
    """

    def __init__(self, owed_frames: Sequence[int], ahead: int) -> None:
        self._owed, self._ahead = owed_frames, ahead
        self._frames = self._awaited = 0
        self._there = asyncio.Event()

    def take(self, frames: int) -> None:
        """So many frames of output have come down on some line."""
        self._frames += frames
        if self._frames >= self._awaited:
            self._there.set()

    async def run(self, lines: Sequence[Line]) -> None:
        """Sends all packets, then the end on every line."""
        packets, chunk = len(self._owed) - 1, CONFIG.chunk_frames
        starts = [number % chunk for number in range(len(lines))]
        for number in range(packets + chunk - 1):
            heard = number - self._ahead
            self._awaited = sum(self._owed[min(max(heard - start, 0), packets)] for start in starts)
            while self._frames < self._awaited:
                self._there.clear()
                await self._there.wait()
            for line, start in zip(lines, starts, strict=True):
                if 0 <= number - start < packets:
                    line.send()
            await asyncio.sleep(0)
        for line in lines:
            line.end()


def times_s(pid: int) -> tuple[float, float]:
    """Seconds that a process and those it has started have been on a processor, and in line for one, until now."""
    stats = [task.read_text().split() for one in family(pid) for task in Path(f"/proc/{one}/task").glob("*/schedstat")]
    return sum(int(stat[0]) for stat in stats) / 1e9, sum(int(stat[1]) for stat in stats) / 1e9


async def turn(server: WireServer, traffic: Traffic, connections: int, rounds: Rounds) -> dict[str, float]:
    """Drives so many connections to their end -> what went through, and what it took."""
    options: dict[str, Any] = {"compression": None, "max_size": None, "ping_interval": None, "proxy": None}
    async with asyncio.timeout(TURN_S), AsyncExitStack() as opened:
        lines = []
        for _ in range(connections):
            socket = await opened.enter_async_context(connect(server.url + traffic.target, **options))
            await socket.recv()  # ready
            lines.append(Line(socket, traffic, rounds.take))
        before = (time.perf_counter(), *times_s(server.pid), time.process_time())
        async with asyncio.TaskGroup() as group:
            group.create_task(rounds.run(lines))
            for line in lines:
                group.create_task(line.receive())
        after = (time.perf_counter(), *times_s(server.pid), time.process_time())
    took_s, server_s, in_line_s, client_s = (end - begin for begin, end in zip(before, after, strict=True))
    messages = sum(line.sent + line.messages for line in lines)
    return {
        "messages": messages,
        "seconds": round(took_s, 3),
        "rate": round(messages / took_s),
        "cpu_us": round(server_s / messages * 1e6, 2),
        "busy": round(server_s / took_s, 3),
        "in_line": round(in_line_s / took_s, 3),
        "client": round(client_s / took_s, 3),
    }


# What comes of it


def drive(server: WireServer, name: str, kind: str, connections: int, packets: int, ahead: int) -> dict[str, float]:
    """One turn of a server, in a loop of its own; shown as it ends."""
    chunk = CONFIG.chunk_frames
    frames = [number // chunk * chunk for number in range(packets + 1)] if name == BARE else owed(kind, packets)

    async def run() -> dict[str, float]:
        return await turn(server, Traffic.of(kind), connections, Rounds(frames, ahead))

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        measured = runner.run(run())
    print(" ".join(f"{cell:>10}" for cell in (kind, name, *(measured[column] for column in MEASURED))), flush=True)
    return measured


def row_of(kind: str, turns: Sequence[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Medians of the turns of each server, and of the ratios within a turn."""
    row: dict[str, Any] = {"kind": kind}
    for name in turns[0]:
        its = [both[name] for both in turns]
        row[name] = {column: statistics.median(one[column] for one in its) for column in MEASURED} | {"turns": its}
    row["ratio"] = round(statistics.median(both[OURS]["rate"] / both[BARE]["rate"] for both in turns), 3)
    row["cpu_ratio"] = round(statistics.median(both[BARE]["cpu_us"] / both[OURS]["cpu_us"] for both in turns), 3)
    if ASGI in row:
        ratios = [turn[ASGI]["cpu_us"] / turn[OURS]["cpu_us"] for turn in turns]
        row["asgi_cpu_ratio"] = round(statistics.median(ratios), 3)
    return row


def settings_of(given: argparse.Namespace) -> Settings:
    """The server as it is by default, but with a place for every connection, whatever the steps take, at any pace."""
    return Settings(
        model=given.model,
        port=0,
        profiles={"default": (CONFIG.chunk_frames, CONFIG.lookahead_frames)},
        workers=given.workers,
        max_sessions=given.connections,
        max_load=1e9,
        max_behind_s=1e9,
        max_messages_per_s=1e9,
        max_attempts_per_minute=None,
    )


def measure(given: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for every kind: the servers in turns, then the real model where it is asked for."""
    settings = settings_of(given)
    sizes = {"connections": given.connections, "ahead": given.ahead}
    rows = []
    load = partial(load_constant, given.step_us / 1e6)
    with hosted(partial(ours, settings, load)) as constant, hosted(partial(asgi, settings, load)) as uvicorn:
        for kind in STAGES:
            with hosted(partial(bare, Traffic.of(kind))) as echo:
                servers = {OURS: constant, ASGI: uvicorn, BARE: echo}
                turns = [
                    {name: drive(servers[name], name, kind, packets=given.packets, **sizes) for name in servers}
                    for _ in range(given.turns)
                ]
            rows.append(row_of(kind, turns))
    if not given.no_model:
        with hosted(partial(ours, settings, load_engines)) as real:
            for row in rows:
                row[MODEL] = drive(real, MODEL, row["kind"], packets=given.model_packets, **sizes)
    return rows


def target_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The least ratio of rates that will do, the least that was measured, and whether it does."""
    measured = min(row["ratio"] for row in rows)
    return {"least": MIN_RATIO, "measured": measured, "met": measured >= MIN_RATIO}


def show(rows: Sequence[dict[str, Any]], target: dict[str, Any]) -> None:
    """The medians as a table, and the verdict."""
    columns = ("kind", OURS, ASGI, BARE, "ratio", "cpu_ratio", "asgi_cpu", MODEL)
    print("messages a second, medians of the turns\n" + " ".join(f"{name:>10}" for name in columns))
    for row in rows:
        model = row[MODEL]["rate"] if MODEL in row else "-"
        rates = (row[name]["rate"] if name in row else "-" for name in (OURS, ASGI, BARE))
        cells = (row["kind"], *rates, row["ratio"], row["cpu_ratio"], row.get("asgi_cpu_ratio", "-"), model)
        print(" ".join(f"{cell:>10}" for cell in cells))
    verdict = "met" if target["met"] else "MISSED"
    print(f"the least share of the bare rate: {target['measured']:.1%} (at least {target['least']:.0%}) {verdict}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--workers", type=int, default=worker_count(Settings()), help="of our server (default %(default)s)")
    add("--connections", type=int, help="default: as many as fill every worker's largest batch in every round")
    add("--packets", type=int, default=200, help="of 20 ms on every connection in a turn (default %(default)s)")
    add("--ahead", type=int, default=2, help="rounds under way beyond what is owed (default %(default)s)")
    add("--turns", type=int, default=5, help="of each server, alternating (default %(default)s)")
    add("--step-us", type=float, default=0.0, help="how long the constant step sleeps (default %(default)g)")
    add("--model", default="nano", help="the real one, for comparison (default %(default)s)")
    add("--model-packets", type=int, default=30, help="on every connection (default %(default)s)")
    add("--no-model", action="store_true", help="leave the real model out")
    add("--out", type=Path, default=RESULTS)
    return parser


def main(arguments: list[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    if given.connections is None:
        given.connections = given.workers * CONFIG.chunk_frames * Settings().batch_sizes[-1]
    print(" ".join(f"{name:>10}" for name in ("kind", "server", *MEASURED)))
    rows = measure(given)
    target = target_of(rows)
    show(rows, target)
    names = ("workers", "connections", "packets", "ahead", "step_us", "model_packets")
    report = {
        "websockets": version("websockets"),
        "uvloop": loop_factory() is not None,
        "model": Path(given.model).name,
        **{name: getattr(given, name) for name in names},
        "rows": rows,
        "target": target,
    }
    write_report(given.out, report)


if __name__ == "__main__":
    main()
