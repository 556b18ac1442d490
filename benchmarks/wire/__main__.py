"""The cost of the wire protocol: messages per second through the server, and through a bare `websockets` server.

Our server runs the whole protocol and engine over runners whose step takes constant time and returns zeros: this keeps
all of its work for a message, without the model's. The bare server receives the same messages and sends one message, of
the size of a chunk's output, for each chunk of 20 ms packets. Each server has its own process with the same event loop;
this process is the client of both, in turns. Packets are sent in rounds, one on every connection; at most `--ahead`
rounds are in flight before all their output has arrived. The servers are thus never idle for long, and read one or two
packets at a time, as with live clients. Packets are framed in advance, so that the client is not the bottleneck.

`rate` is messages per second, in both directions; `cpu_us` is the server's processor time per message. `busy` is the
server's processor share (in cores), `in_line` its run-queue delay, `client` the client's share. The ratio of rates
compares the servers if both were busy and the client was not; the ratio of processor time does not depend on the
client. `asgi` is our server as an application of uvicorn, and `asgi_cpu_ratio` its processor time per message relative
to our own listener. `model` is the rate with the real model, which its steps limit.

A step only yields the interpreter (`--step-us 0`): during a longer step the event loop would run undisturbed, and
larger batches would gather. Needs /proc (Linux).

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
from neucodec_streaming.server.loading import load_engines
from neucodec_streaming.server.model import worker_count
from neucodec_streaming.server.settings.fields import Settings

RESULTS = RESULTS_FOLDER / "wire.json"
MIN_RATIO = 0.6
"""Target: the minimum share of the bare server's rate."""
TURN_S = 120.0
OURS, ASGI, BARE, MODEL = "ours", "asgi", "bare", "model"
MEASURED = ("rate", "cpu_us", "busy", "in_line", "client")


def owed(kind: str, packets: int) -> list[int]:
    """Returns the frames of output that a session of `kind` must have sent after 0, 1, ... `packets` packets."""
    chunk, frames, found = CONFIG.chunk_frames, 0, []
    for number in range(packets + 1):
        frames += chunk * (needed_packets(kind, CONFIG, frames + chunk) <= number)
        found.append(frames)
    return found


class Line(asyncio.Protocol):
    """One connection: it sends packets, counts the output, and reports its frames to `take`.

    From `ready` to the last message it parses frames itself, which leaves the server more of the shared processors than
    a client library would.
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
        """Sends one packet, without waiting for a drain: the rounds bound the data in flight."""
        self._transport.write(self._frame)
        self.sent += 1

    def end(self) -> None:
        """Sends `end` after the last packet."""
        self._transport.write(Frame(Opcode.TEXT, encode_message(End()).encode()).serialize(mask=True))

    async def receive(self) -> None:
        """Waits for the server's last message. Raises SystemExit if output is missing."""
        last = await self._last
        if self.frames != self.sent:
            raise SystemExit(f"{self.sent} packets were answered by {self.frames} frames of output, then {last!r}")

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while (size := self._header_size()) and len(self._unread) >= (end := size + self._length):
            opcode, payload = self._unread[0] & 0x0F, self._unread[size:end]
            del self._unread[:end]
            if opcode != Opcode.BINARY:
                self._transport.set_protocol(self._socket)  # the library does the closing handshake
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
        """Returns the header size of the next frame, which has `_length` bytes of payload; 0 if it is incomplete."""
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
    """Sends one packet on every line per round, at most `ahead` rounds before the output due has arrived.

    The lines start staggered over the first rounds, one chunk's worth, so that afterwards equally many lines complete a
    chunk in every round. `owed_frames` is the output due of one line by its number of packets.
    """

    def __init__(self, owed_frames: Sequence[int], ahead: int) -> None:
        self._owed, self._ahead = owed_frames, ahead
        self._frames = self._awaited = 0
        self._there = asyncio.Event()

    def take(self, frames: int) -> None:
        """Counts output frames that arrived on any line."""
        self._frames += frames
        if self._frames >= self._awaited:
            self._there.set()

    async def run(self, lines: Sequence[Line]) -> None:
        """Sends all packets, then `end` on every line."""
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
    """Returns the seconds of processor time and of run-queue delay of a process and its descendants until now."""
    stats = [task.read_text().split() for one in family(pid) for task in Path(f"/proc/{one}/task").glob("*/schedstat")]
    return sum(int(stat[0]) for stat in stats) / 1e9, sum(int(stat[1]) for stat in stats) / 1e9


async def turn(server: WireServer, traffic: Traffic, connections: int, rounds: Rounds) -> dict[str, float]:
    """Drives `connections` connections to their end; returns the traffic and its cost."""
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


# Reports


def drive(server: WireServer, name: str, kind: str, connections: int, packets: int, ahead: int) -> dict[str, float]:
    """Runs one turn of a server in its own event loop, and prints it."""
    chunk = CONFIG.chunk_frames
    frames = [number // chunk * chunk for number in range(packets + 1)] if name == BARE else owed(kind, packets)

    async def run() -> dict[str, float]:
        return await turn(server, Traffic.of(kind), connections, Rounds(frames, ahead))

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        measured = runner.run(run())
    print(" ".join(f"{cell:>10}" for cell in (kind, name, *(measured[column] for column in MEASURED))), flush=True)
    return measured


def row_of(kind: str, turns: Sequence[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Returns the medians of the turns of each server, and of the ratios within a turn."""
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
    """Returns the default settings with a slot for every connection and without limits on load and rate."""
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
    """Returns a row for every kind: the servers in turns, then the real model unless excluded."""
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
    """Compares the smallest measured ratio of rates with the target."""
    measured = min(row["ratio"] for row in rows)
    return {"least": MIN_RATIO, "measured": measured, "met": measured >= MIN_RATIO}


def show(rows: Sequence[dict[str, Any]], target: dict[str, Any]) -> None:
    """Prints the medians as a table, and the verdict."""
    columns = ("kind", OURS, ASGI, BARE, "ratio", "cpu_ratio", "asgi_cpu", MODEL)
    print("messages per second, medians of the turns\n" + " ".join(f"{name:>10}" for name in columns))
    for row in rows:
        model = row[MODEL]["rate"] if MODEL in row else "-"
        rates = (row[name]["rate"] if name in row else "-" for name in (OURS, ASGI, BARE))
        cells = (row["kind"], *rates, row["ratio"], row["cpu_ratio"], row.get("asgi_cpu_ratio", "-"), model)
        print(" ".join(f"{cell:>10}" for cell in cells))
    verdict = "met" if target["met"] else "MISSED"
    print(f"smallest share of the bare rate: {target['measured']:.1%} (at least {target['least']:.0%}) {verdict}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--workers", type=int, default=worker_count(Settings()), help="workers of our server (default %(default)s)")
    add("--connections", type=int, help="default: enough to fill every worker's largest batch in every round")
    add("--packets", type=int, default=200, help="packets of 20 ms per connection and turn (default %(default)s)")
    add("--ahead", type=int, default=2, help="rounds in flight before their output has arrived (default %(default)s)")
    add("--turns", type=int, default=5, help="turns of each server, alternating (default %(default)s)")
    add("--step-us", type=float, default=0.0, help="duration of the constant step (default %(default)g)")
    add("--model", default="nano", help="real model, for comparison (default %(default)s)")
    add("--model-packets", type=int, default=30, help="packets per connection for the real model (default %(default)s)")
    add("--no-model", action="store_true", help="do not measure the real model")
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
