"""The load benchmark counts chunks, their due times, late, lost and wrong ones, and finds the side at fault."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.frames import Close
from websockets.http11 import Response

from benchmarks.load import __main__ as load
from benchmarks.load import client as load_client
from benchmarks.load import hold as load_hold
from benchmarks.load.__main__ import counts_of, jobs_of, largest_in_time, main, parse_mix
from benchmarks.load.client import DONE, REFUSED, Job, Live, Plan, chunks_due, keep_time
from benchmarks.load.hold import BURST, Footprint, Phase, Usage, phases_of, plans_of, row_of, shares, spread
from benchmarks.load.verify import References, compared, is_right, payload_path, verified, worst, write_payloads
from neucodec_streaming.audio import pcm_from_bytes, pcm_to_bytes
from neucodec_streaming.config import INPUT_HOP, OUTPUT_HOP, StreamConfig
from neucodec_streaming.engine.engine import STAGES, Engine
from neucodec_streaming.engine.results import Output
from neucodec_streaming.engine.scheduler import Pool
from neucodec_streaming.errors import ConfigError, ProtocolError
from neucodec_streaming.protocol.messages import Done, End, Failure, Ready, encode_message
from neucodec_streaming.protocol.query import session_request
from tests.benchmarks.speechlike import speechlike
from tests.server.hosting import GOLDEN, hosted
from tests.streaming.engine.fake import FakeRunner
from tests.streaming.models import codec_of

WHOLE = Phase("", 0.0, 10.0)
TONE = pcm_to_bytes(0.5 * np.sin(np.arange(6000, dtype=np.float32) / 7))


def with_difference(payload: bytes, steps: int) -> bytes:
    samples = np.frombuffer(payload, "<i2").copy()
    samples[100] += steps
    return samples.tobytes()


# Input and its schedule


def test_a_mix_expands_to_the_kinds_of_the_first_sessions() -> None:
    assert parse_mix("roundtrip") == ("roundtrip",)
    assert parse_mix("encode:1, decode:1,roundtrip:2") == ("encode", "decode", "roundtrip", "roundtrip")


@pytest.mark.parametrize("text", ["", "sing", "encode:0", "encode:x", "encode:1,,decode", "encode:-1"])
def test_an_invalid_mix_is_refused_with_the_known_kinds(text: str) -> None:
    with pytest.raises(ConfigError, match="encode, decode, roundtrip"):
        parse_mix(text)


def test_jobs_follow_the_mix_rotate_over_the_inputs_and_have_seeded_phases() -> None:
    jobs = jobs_of(("encode", "decode"), 6, 2, Path("x"), seed=1)
    assert [job.number for job in jobs] == list(range(6))
    assert [job.kind for job in jobs] == 3 * ["encode", "decode"]
    assert [Path(job.payload).stem for job in jobs] == [f"clip-{clip}" for clip in (0, 0, 1, 1, 0, 0)]
    assert all(0 <= job.phase_s < load.PHASES_S for job in jobs) and len({job.phase_s for job in jobs}) == 6
    assert jobs == jobs_of(("encode", "decode"), 6, 2, Path("x"), seed=1)


def test_plans_assign_every_job_once_and_survive_serialisation() -> None:
    jobs = jobs_of(("roundtrip",), 5, 2, Path("x"), seed=0)
    plans = plans_of(jobs, 2, "ws://there", 3.0, Path("out"))
    assert sorted(job.number for plan in plans for job in plan.jobs) == list(range(5))
    assert [len(plan.jobs) for plan in plans] == [3, 2]
    assert len(plans_of(jobs[:1], 4, "ws://there", 3.0, None)) == 1
    assert [Plan.from_json(plan.to_json()) for plan in plans] == plans


def test_a_ramp_has_steps_up_to_a_bound() -> None:
    parse = load._parser().parse_args
    assert list(counts_of(parse(["--ramp", "--step", "8", "--most", "30"]))) == [8, 16, 24]
    assert list(counts_of(parse(["--sessions", "5"]))) == [5]


@pytest.mark.parametrize("kind", STAGES)
@pytest.mark.parametrize("shape", [(5, 5), (2, 3), (3, 0), (1, 1), (4, 1)])
def test_chunks_are_due_with_the_packet_that_the_engine_needs(kind: str, shape: tuple[int, int]) -> None:
    config, packets = StreamConfig(*shape), 40
    pools = {part: Pool(part, config) for part in STAGES["roundtrip"]}
    engine = Engine(FakeRunner(pools=list(pools.values())), gather_s=0.0)
    session = engine.open(kind, pools)
    packet = np.zeros(1, np.uint16) if kind == "decode" else np.zeros(INPUT_HOP, np.float32)
    hop, frames, found = 1 if kind == "encode" else OUTPUT_HOP, 0, []
    for number in range(1, packets + 1):
        engine.feed(session, packet, float(number))
        while engine.wake_s() is not None:
            for result in engine.step(float(number)):
                if isinstance(result, Output):
                    frames += len(result.data) // hop
                    found.append((frames, number))
    assert chunks_due(kind, config, packets) == found


# Events of a client


class FakeSocket:
    """Sets the clock to each event's time and returns the event, or raises it if it is an exception."""

    def __init__(self, clock: list[float], script: list[tuple[float, object]]) -> None:
        self.clock, self.script = clock, script
        self.sent: list[bytes | str] = []

    async def recv(self):
        self.clock[0], item = self.script.pop(0)
        if isinstance(item, Exception):
            raise item
        return item

    async def send(self, message: bytes | str) -> None:
        self.sent.append(message)

    async def close(self) -> None:
        self.sent.append("close")


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


async def heard(monkeypatch, clock: list[float], *script: tuple[float, object]) -> tuple[Live, FakeSocket]:
    """An encode session of 30 packets that begins at 100 and hears the script."""
    request = session_request("encode")
    ready = Ready("name", "model", "default", 5, 5, 215.0, request.input, request.output)
    socket = FakeSocket(clock, [(99.0, encode_message(ready)), *script])

    async def connect(*_, **__) -> FakeSocket:
        return socket

    monkeypatch.setattr(load_client, "connect", connect)
    live = Live(Job(3, "encode", "file", 0.5), 30 * [bytes(2 * INPUT_HOP)], True, lambda: clock[0])
    await live.open("ws://there", 1)
    live.begin(100.0)
    for due_s, _, number in list(live.turns()):
        clock[0] = due_s
        await live.send(number)
    await live.receive()
    return live, socket


CHUNK = bytes(10)


async def test_a_chunk_is_late_against_the_schedule_and_two_in_one_message_are_two(monkeypatch, clock) -> None:
    live, socket = await heard(
        monkeypatch,
        clock,
        (100.71, CHUNK),  # needs 11 packets, the last of them due at 100.7
        (100.93, 2 * CHUNK),
        (101.1, 3 * CHUNK),
        (101.2, encode_message(Done(30 * INPUT_HOP, 30, 0))),
    )
    report = live.report()
    assert report["due_s"] == pytest.approx([0.7, 0.8, 0.9, 1.0]), "the last two chunks come with the flush"
    assert report["late_ms"] == pytest.approx([10.0, 130.0, 30.0, 100.0])
    assert report["first_ms"] == pytest.approx(210.0) and report["outcome"] == DONE
    assert live.output == [CHUNK, 2 * CHUNK, 3 * CHUNK]
    assert len(socket.sent) == 32 and socket.sent[30] == encode_message(End())


@pytest.mark.parametrize(
    ("last", "outcome"),
    [
        (encode_message(Failure("capacity", "too many")), "capacity"),
        (ConnectionClosedError(Close(1011, ""), None), "close 1011"),
        (ConnectionClosedError(None, None), "close 1006"),
        (encode_message(Done(30 * INPUT_HOP, 6, 0)), ProtocolError.code),
    ],
)
async def test_a_lost_session_reports_the_reason(monkeypatch, clock, last: object, outcome: str) -> None:
    live, _ = await heard(monkeypatch, clock, (100.71, CHUNK), (100.8, last))
    report = live.report()
    assert report["outcome"] == outcome
    assert len(report["due_s"]) == 4 and len(report["late_ms"]) == 1
    assert not await live.send(0), "nothing is sent to a session that is over"


@pytest.mark.parametrize(("status", "outcome"), [(503, REFUSED), (400, "HTTP 400")])
async def test_a_refusal_is_not_an_error(monkeypatch, status: int, outcome: str) -> None:
    async def connect(*_, **__):
        raise InvalidStatus(Response(status, "", Headers()))

    monkeypatch.setattr(load_client, "connect", connect)
    live = Live(Job(0, "encode", "file"), [b""], False, lambda: 0.0)
    await live.open("ws://there", 1)
    live.begin(0.0)
    assert live.outcome == outcome and live.report()["due_s"] == []


async def test_a_late_client_is_reported() -> None:
    clock = asyncio.get_running_loop().time
    live = Live(Job(0, "encode", "file"), [bytes(640)], False, clock)
    live.begin(clock() - 1.0)
    assert await keep_time([live], clock) == [], "it is not open: nothing was sent"
    live.send = lambda number: asyncio.sleep(0, True)  # type: ignore[assignment]
    first_ms, last_ms = await keep_time([live], clock)
    assert first_ms >= 1000.0 and last_ms >= 980.0


# Results


def seen(number: int, late_ms: list[float], due: int = 4, kind: str = "encode", outcome: str = DONE) -> dict:
    """A session whose chunks are due every 100 ms from 0.05 on."""
    return {
        "number": number,
        "kind": kind,
        "payload": "x",
        "outcome": outcome,
        "first_ms": 300.0 + number if late_ms else None,
        "due_s": [0.05 + 0.1 * chunk for chunk in range(due)],
        "late_ms": late_ms,
        "chunk_frames": 5 if due else None,
    }


def test_a_row_reports_chunks_kinds_and_the_worst_session() -> None:
    sessions = [seen(0, [10.0, 10.0, 10.0, 10.0]), seen(1, [10.0, 10.0, 10.0, 90.0], kind="decode")]
    row = row_of(sessions, [1.0, 2.0], WHOLE)
    assert row["late_ms"]["count"] == 8 and row["late_ms"]["max"] == 90.0 and row["chunk_ms"] == 100
    assert row["late_ms_of"]["encode"]["p99"] == 10.0 and row["late_ms_of"]["decode"]["max"] == 90.0
    assert row["worst_session_p99_ms"] == row["late_ms_of"]["decode"]["p99"]
    assert row["first_ms"]["count"] == 2 and row["held"] == 2 and row["ended"] == {}
    assert row["in_time"] and row["clients_kept_up"]


@pytest.mark.parametrize(
    "broken",
    [
        [seen(0, [101.0, 101.0, 101.0, 101.0])],
        [seen(0, 4 * [1.0]), seen(1, [], due=0, outcome=REFUSED)],
        [seen(0, 4 * [1.0]), seen(1, [1.0, 1.0], outcome="close 1006")],
        [seen(0, 3 * [1.0])],
        [seen(0, [], due=0, outcome=REFUSED)],
    ],
    ids=["late", "refused", "lost", "missing", "nobody"],
)
def test_a_row_with_any_fault_is_not_in_time(broken: list[dict]) -> None:
    assert not row_of(broken, [1.0], WHOLE)["in_time"]


def test_refused_lost_and_missing_are_counted_separately() -> None:
    sessions = [seen(0, 4 * [1.0]), seen(1, [], due=0, outcome=REFUSED), seen(2, [1.0], outcome="capacity")]
    row = row_of(sessions, [1.0], WHOLE)
    assert (row["held"], row["refused"], row["ended"], row["missing"]) == (1, 1, {"capacity": 1}, 3)


def test_each_phase_has_its_own_chunks() -> None:
    calm, burst = phases_of(0.2, bursts=True)
    assert (burst.name, burst.since_s, burst.until_s) == (BURST, 0.2, 0.4)
    session = seen(0, [1.0, 2.0, 30.0], due=5)
    assert row_of([session], [1.0], calm)["late_ms"]["max"] == 2.0
    row = row_of([session], [1.0], burst)
    assert row["late_ms"]["max"] == 30.0 and row["missing"] == 1, "a chunk that was due after the end is in no phase"
    assert phases_of(0.2, bursts=False) == [calm]


def test_clients_that_do_not_keep_up_mark_their_row(capsys) -> None:
    row = row_of([seen(0, 4 * [1.0])], 90 * [1.0] + 10 * [50.0], WHOLE)
    assert not row["clients_kept_up"]
    load.show({**row, **shares(Usage(*8 * [0.0]), Usage(*8 * [1.0]), False), "server_memory_mb": None})
    out = capsys.readouterr().out
    assert "DID NOT KEEP UP" in out and " - " in out


def test_without_values_there_is_no_percentile() -> None:
    assert spread([]) == {"p50": None, "p95": None, "p99": None, "max": None, "count": 0}
    assert spread(range(101)) == {"p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0, "count": 101}


def test_the_capacity_is_the_largest_row_in_time() -> None:
    rows = [{"sessions": 8, "in_time": True}, {"sessions": 16, "in_time": True}, {"sessions": 24, "in_time": False}]
    assert largest_in_time(rows) == 16 and largest_in_time(rows[2:]) is None


def test_usage_is_processor_time_and_unknown_for_an_external_server() -> None:
    before, own = Usage.now(os.getpid(), [os.getpid()]), os.times()
    while os.times().user + os.times().system < own.user + own.system + 0.05:
        sum(range(10_000))
    found = shares(before, Usage.now(os.getpid(), [os.getpid()]), True)
    assert found["server_cpu"] > 0.1 and found["clients_cpu"] == pytest.approx(found["server_cpu"], abs=0.3)
    footprint = Footprint.of(os.getpid())
    assert 1e7 < footprint.memory_bytes <= footprint.resident_bytes
    assert footprint.descriptors >= 3 and footprint.threads >= 1
    moment = Usage(
        at=10.0, server=1.0, loop=0.5, clients=0.5, beside=0.3, server_waited=0.1, clients_waited=0.2, machine=2.0
    )
    assert shares(Usage(*8 * [0.0]), moment, True) == {
        "server_cpu": 0.1,
        "loop_cpu": 0.05,
        "clients_cpu": 0.05,
        "beside_cpu": 0.03,
        "others_cpu": 0.02,
        "in_line": 0.01,
        "clients_in_line": 0.02,
    }
    unknown = shares(Usage.now(None, []), Usage.now(None, []), False)
    assert [name for name, share in unknown.items() if share is None] == ["server_cpu", "loop_cpu", "in_line"]


# Correctness of output


def test_at_one_batch_size_output_must_be_equal_byte_for_byte() -> None:
    assert is_right("roundtrip", compared("roundtrip", TONE, TONE, True, 5), True)
    assert not is_right("roundtrip", compared("roundtrip", with_difference(TONE, 1), TONE, True, 5), True)


def test_at_several_batch_sizes_decoded_audio_may_differ_by_the_tolerance() -> None:
    near, far = (compared("decode", with_difference(TONE, steps), TONE, True, 5) for steps in (4, 5))
    assert is_right("decode", near, False) and not is_right("decode", far, False)
    assert near["chunks_equal"] == 1.0 and far["chunks_equal"] == pytest.approx(2 / 3), "6000 samples, 2400 a chunk"
    assert near["max_difference"] == pytest.approx(4 / 32_768) and far["snr_db"] < near["snr_db"]
    assert is_right("roundtrip", far, False), "a token that fell the other way is no mistake"


def test_tokens_are_compared_whole_and_level_by_level() -> None:
    tokens = np.arange(8, dtype="<u2")
    other = tokens.copy()
    other[0] ^= 1
    found = compared("encode", other.tobytes(), tokens.tobytes(), True, 5)
    assert found["tokens_equal"] == 7 / 8 and found["levels_equal"] == 63 / 64 and not found["identical"]
    assert worst([found, compared("encode", tokens.tobytes(), tokens.tobytes(), True, 5)]) == {
        "sessions": 2,
        "identical": 1,
        "tokens_equal": 7 / 8,
        "levels_equal": 63 / 64,
    }


def test_a_session_closed_early_needs_a_prefix_and_an_ended_one_the_whole_output() -> None:
    assert compared("decode", TONE[:4800], TONE, False, 5)["identical"]
    assert not is_right("decode", compared("decode", TONE[:4800], TONE, True, 5), False)
    assert not is_right("decode", compared("decode", TONE + TONE, TONE, False, 5), False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for number, gain in enumerate((1.0, 0.5)):
        speaker = folder / "eval" / f"speaker-{number}"
        speaker.mkdir(parents=True)
        soundfile.write(speaker / "a.wav", gain * speechlike(0.9 + 0.1 * number), 16_000)
    return folder


@pytest.fixture(scope="module")
def payloads(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("payloads")
    write_payloads(folder, data, 2, 110, codec_of("golden"))
    yield folder


def test_inputs_are_looped_recordings_and_their_tokens(payloads: Path) -> None:
    first, second = (pcm_from_bytes(payload_path(payloads, "roundtrip", clip).read_bytes()) for clip in (0, 1))
    assert len(first) == len(second) == 110 * INPUT_HOP
    np.testing.assert_allclose(first[: 45 * INPUT_HOP], second[50 * INPUT_HOP : 95 * INPUT_HOP], atol=1e-4)
    tokens = np.frombuffer(payload_path(payloads, "decode", 0).read_bytes(), "<u2")
    assert len(tokens) == 110 and (tokens[:15] == tokens[95:]).all()
    own = codec_of("golden").encode(speechlike(0.9))
    assert (tokens[:45] == own).mean() > 0.9, "s16 apart"


def test_the_reference_equals_the_output_of_streams(payloads: Path, tmp_path: Path) -> None:
    codec = codec_of("golden")
    encoder, decoder = codec.encoder_stream(), codec.decoder_stream()
    source = tmp_path / "short"
    source.write_bytes(payload_path(payloads, "roundtrip", 0).read_bytes()[: 36 * INPUT_HOP * 2])
    tokens = np.concatenate([encoder.feed(pcm_from_bytes(source.read_bytes())), encoder.flush()])
    audio = pcm_to_bytes(np.concatenate([decoder.feed(tokens), decoder.flush()]))
    references = References(codec, codec.default_config, 1)
    assert references.of("encode", source) == tokens.tobytes()
    assert references.of("roundtrip", source) == audio and references.of("roundtrip", source) == audio
    sessions = [{**seen(number, [1.0], kind="roundtrip"), "payload": str(source)} for number in range(3)]
    for number, output in enumerate((audio, with_difference(audio, 1), b"")):
        (tmp_path / str(number)).write_bytes(output)
    found = verified(sessions, tmp_path, references, True)
    assert found["failed"] == [1, 2] and found["kinds"]["roundtrip"]["identical"] == 1


# Whole runs


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions begin at almost the same time, so that a second has chunks of all."""
    monkeypatch.setattr(load, "PHASES_S", 0.1)


@pytest.mark.slow
@pytest.mark.usefixtures("_soon")
def test_a_run_with_a_burst_against_its_own_server_is_verified(data: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("NEUCODEC_PROFILES", "default")
    monkeypatch.setenv("NEUCODEC_MAX_LOAD", "1e9")  # however slow the machine is just now
    out = tmp_path / "load.json"
    flags = "--sessions 3 --seconds 1 --mix encode,decode,roundtrip --clips 2 --burst --verify"
    server = ["--batch-sizes", "4", "--threads", "1", "--model", str(GOLDEN)]
    assert main([*flags.split(), *server, "--data", str(data), "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    calm, burst = result["rows"]
    assert calm["held"] == burst["held"] == 3 and not calm["missing"] and not burst["missing"]
    assert calm["late_ms"]["count"] > 10 and set(calm["late_ms_of"]) == {"encode", "decode", "roundtrip"}
    assert 0 < calm["loop_cpu"] <= calm["server_cpu"] and calm["server_memory_mb"] > 50
    assert burst["burst"]["got_s"] > 0.2 and burst["burst"]["kind"] == "decode"
    (checked,) = result["verified"]
    assert checked["pinned"] and not checked["failed"]
    assert [its["identical"] for its in checked["kinds"].values()] == [1, 1, 1]
    printed = capsys.readouterr().out
    assert "every output is right" in printed and "times real time" in printed


@pytest.mark.slow
@pytest.mark.usefixtures("_soon")
def test_a_ramp_ends_where_a_session_is_refused(data: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(load_hold, "is_in_time", lambda row: row["held"] == row["sessions"])  # on any machine
    out = tmp_path / "load.json"
    flags = ["--ramp", "--step", "2", "--ramp-seconds", "1", "--processes", "2"]
    with hosted(FakeRunner(), max_sessions=3) as host:
        assert main([*flags, "--url", host.url, "--data", str(data), "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [(row["sessions"], row["held"], row["refused"]) for row in rows] == [(2, 2, 0), (4, 3, 1)]
    assert rows[0]["server_cpu"] is None and rows[0]["clients_cpu"] >= 0
    assert "the most sessions held in time: 2" in capsys.readouterr().out


def test_a_client_that_dies_ends_the_run(monkeypatch) -> None:
    async def start() -> None:
        async with load_hold.client(Plan("ws://there", (Job(0, "encode", "no such file"),), 1.0)) as clients:
            await clients.hear(20.0)

    with pytest.raises(SystemExit, match="died"):
        asyncio.run(start())
