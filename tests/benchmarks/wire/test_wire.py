"""The wire benchmark: rounds, expected output, equal messages on both servers, and ratios."""

import asyncio
import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from websockets.asyncio.client import connect

from benchmarks.wire import __main__ as wire
from benchmarks.wire import servers as wire_servers
from benchmarks.wire.__main__ import ASGI, BARE, MODEL, OURS, Line, Rounds
from benchmarks.wire.servers import CONFIG, ConstantRunner, Serving, Traffic, WireServer
from neucodec_streaming.config import INPUT_HOP, OUTPUT_HOP
from neucodec_streaming.engine.engine import STAGES, Engine
from neucodec_streaming.engine.results import Output
from neucodec_streaming.protocol.messages import End, encode_message
from neucodec_streaming.server.settings.fields import Settings

CHUNK = CONFIG.chunk_frames
ENCODE = Traffic.of("encode")


# Packets, and the output expected for them


@pytest.mark.parametrize(("kind", "packet", "frame"), [("encode", 640, 2), ("decode", 2, 960), ("roundtrip", 640, 960)])
def test_packets_and_frames_have_the_sizes_of_their_kind(kind: str, packet: int, frame: int) -> None:
    traffic = Traffic.of(kind)
    assert (traffic.packet_bytes, traffic.frame_bytes) == (packet, frame)
    assert traffic.target == f"/v1/{kind}"


@pytest.mark.parametrize("kind", STAGES)
def test_the_expected_output_size_equals_the_engines(kind: str) -> None:
    runner = ConstantRunner(1, (1,), 0.0)
    engine = Engine(runner, gather_s=0.0)
    session = engine.open(kind, {pool.kind: pool for pool in runner.pools})
    packet = np.zeros(1, np.uint16) if kind == "decode" else np.zeros(INPUT_HOP, np.float32)
    hop, frames, found = 1 if kind == "encode" else OUTPUT_HOP, 0, [0]
    for number in range(40):
        engine.feed(session, packet, float(number))
        while engine.wake_s() is not None:
            results = engine.step(float(number))
            frames += sum(len(result.data) // hop for result in results if isinstance(result, Output))
        found.append(frames)
    assert wire.owed(kind, 40) == found
    assert found[-1] > 0


class FakeLine:
    """Records the rounds in which it sends; `rounds` is called with a chunk's output for every chunk of packets."""

    def __init__(self, rounds: Rounds, answers: bool = True) -> None:
        self.rounds, self.answers = rounds, answers
        self.sent, self.ended = 0, False

    def send(self) -> None:
        self.sent += 1
        if self.answers and self.sent % CHUNK == 0:
            self.rounds.take(CHUNK)

    def end(self) -> None:
        self.ended = True


def every_chunk(packets: int) -> list[int]:
    return [number // CHUNK * CHUNK for number in range(packets + 1)]


async def test_every_line_sends_all_of_its_packets_and_the_end() -> None:
    rounds = Rounds(every_chunk(20), ahead=1)
    lines = [FakeLine(rounds) for _ in range(7)]
    await asyncio.wait_for(rounds.run(lines), 5)
    assert [line.sent for line in lines] == 7 * [20] and all(line.ended for line in lines)


@pytest.mark.parametrize("ahead", [0, 1, 3])
async def test_rounds_sent_ahead_of_the_output_are_bounded(ahead: int) -> None:
    rounds = Rounds(every_chunk(20), ahead)
    lines = [FakeLine(rounds, answers=False) for _ in range(CHUNK)]
    running = asyncio.create_task(rounds.run(lines))
    for _ in range(20):
        await asyncio.sleep(0)
    assert [line.sent for line in lines] == [CHUNK + ahead - start for start in range(CHUNK)]
    rounds.take(CHUNK)
    for _ in range(20):
        await asyncio.sleep(0)
    assert lines[0].sent == CHUNK + ahead + 1, "the first line's chunk was all that the next round waited for"
    running.cancel()


async def test_a_run_with_missing_output_is_not_a_measurement() -> None:
    async with wire_servers.bare(ENCODE) as url, connect(url, proxy=None) as socket:
        assert await socket.recv() == "ready"
        line = Line(socket, ENCODE, lambda frames: None)
        for _ in range(CHUNK + 1):
            line.send()
        line.end()
        with pytest.raises(SystemExit, match="6 packets were answered by 5 frames of output, then 'done'"):
            await line.receive()


# Servers


async def turn_of(serving: Serving, kind: str, owed: list[int]) -> dict[str, float]:
    async with serving() as url:
        return await wire.turn(WireServer(url, os.getpid()), Traffic.of(kind), 10, Rounds(owed, ahead=2))


@pytest.mark.parametrize("kind", STAGES)
async def test_both_servers_carry_the_same_messages(kind: str) -> None:
    settings = Settings(port=0, workers=1, max_sessions=10, max_load=1e9)
    ours = await turn_of(
        partial(wire_servers.ours, settings, partial(wire_servers.load_constant, 0.0)),
        kind,
        wire.owed(kind, packets=20),
    )
    bare = await turn_of(partial(wire_servers.bare, Traffic.of(kind)), kind, every_chunk(20))
    assert bare["messages"] == 10 * (20 + 20 // CHUNK)
    at_the_end = 10 * 2  # of a session, a chunk and its lookahead may come in one message
    assert bare["messages"] - at_the_end <= ours["messages"] <= bare["messages"]
    assert min(ours["rate"], bare["rate"]) > 0 and min(ours["cpu_us"], bare["cpu_us"]) > 0


async def test_the_bare_server_answers_a_chunk_by_the_size_of_its_output() -> None:
    async with wire_servers.bare(Traffic.of("decode")) as url, connect(url, proxy=None) as socket:
        assert await socket.recv() == "ready"
        for _ in range(2 * CHUNK):
            await socket.send(bytes(2))
        await socket.send(encode_message(End()))
        assert [len(await socket.recv()) for _ in range(3)] == [CHUNK * 960, CHUNK * 960, len("done")]


@pytest.mark.parametrize("kind", STAGES["roundtrip"])
def test_a_constant_step_gives_zeros_of_the_shape_of_a_step(kind: str) -> None:
    runner = ConstantRunner(4, (1, 4), 0.0)
    pool = next(pool for pool in runner.pools if pool.kind == kind)
    rows = runner.launch(pool, [0, 1, 2], 3 * [runner.windower(pool).take_last()], 4).wait()
    frames = CONFIG.window_frames
    assert rows.shape == (3, frames if kind == "encode" else frames * OUTPUT_HOP) and not rows.any()


@pytest.mark.slow
def test_a_server_has_a_process_of_its_own_which_ends_with_its_context() -> None:
    with wire_servers.hosted(partial(wire_servers.bare, ENCODE)) as server:
        assert server.url.startswith("ws://127.0.0.1:") and server.pid != os.getpid()
        assert sum(wire.times_s(server.pid)) > 0
    assert wire.times_s(server.pid) == (0, 0)


@pytest.mark.slow
def test_a_server_that_does_not_start_ends_the_run(capfd: pytest.CaptureFixture[str]) -> None:
    settings = Settings(port=0, model="no such model")
    with (
        pytest.raises(SystemExit, match="did not start"),
        wire_servers.hosted(partial(wire_servers.ours, settings, wire.load_engines)),
    ):
        pass
    assert "no such model" in capfd.readouterr().err


# Results


def turns_of(*rates: tuple[float, float]) -> list[dict[str, dict[str, float]]]:
    """A message of ours takes twice the processor time."""
    same = {"busy": 1.0, "in_line": 0.0, "client": 0.5}
    return [
        {OURS: {"rate": ours, "cpu_us": 20.0, **same}, BARE: {"rate": bare, "cpu_us": 10.0, **same}}
        for ours, bare in rates
    ]


def test_a_row_has_medians_over_the_turns_and_over_their_ratios() -> None:
    row = wire.row_of("encode", turns_of((50, 100), (70, 100), (60, 200)))
    assert (row[OURS]["rate"], row[BARE]["rate"]) == (60, 100)
    assert (row["ratio"], row["cpu_ratio"]) == (0.5, 0.5)
    assert [one["rate"] for one in row[OURS]["turns"]] == [50, 70, 60]


@pytest.mark.parametrize(("least", "met"), [(60, True), (59, False)])
def test_the_worst_kind_decides_about_the_target(least: int, met: bool, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [wire.row_of("encode", turns_of((90, 100))), wire.row_of("roundtrip", turns_of((least, 100)))]
    rows[0][MODEL] = {"rate": 7}
    target = wire.target_of(rows)
    assert target == {"least": 0.6, "measured": least / 100, "met": met}
    wire.show(rows, target)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["encode", "90", "-", "100", "0.9", "0.5", "-", "7"] and lines[3].split()[-1] == "-"
    assert lines[4].endswith("met" if met else "MISSED")


@pytest.mark.slow
def test_a_run_writes_what_it_measured(tmp_path: Path) -> None:
    out = tmp_path / "wire.json"
    wire.main(
        ["--workers", "1", "--connections", "5", "--packets", "10", "--turns", "2", "--no-model", "--out", str(out)]
    )
    result = json.loads(out.read_text())
    assert [row["kind"] for row in result["rows"]] == list(STAGES)
    assert all(len(row[name]["turns"]) == 2 for row in result["rows"] for name in (OURS, ASGI, BARE))
    assert all(row["asgi_cpu_ratio"] > 0 for row in result["rows"])
    assert {"date", "commit", "device", "websockets"} <= result.keys()
    assert result["connections"] == 5 and result["target"]["least"] == wire.MIN_RATIO
