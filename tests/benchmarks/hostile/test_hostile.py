"""The hostile benchmark does what it says to a server, and judges what it sees."""

import asyncio
import json
import time
from pathlib import Path

import pytest
import soundfile

from benchmarks.common.raw_connection import Target
from benchmarks.hostile.__main__ import CALM, CALM_AGAIN, MAX_GROWTH_MB, compared_with_calm, judged, main, phases_of
from benchmarks.hostile.attacks import ATTACKS
from benchmarks.hostile.client import HostilePlan, Strike, strike
from benchmarks.load import __main__ as load
from tests.benchmarks.speechlike import speechlike
from tests.server.hosting import GOLDEN, Host, hosted
from tests.streaming.engine.fake import FakeRunner


def test_phases_begin_and_end_calm() -> None:
    phases = phases_of(["kill", "flood"], 2.0)
    assert [phase.name for phase in phases] == [CALM, "kill", "flood", CALM_AGAIN]
    assert [(phase.since_s, phase.until_s) for phase in phases] == [(0.0, 2.0), (2.0, 4.0), (4.0, 6.0), (6.0, 8.0)]


def test_a_plan_survives_serialisation() -> None:
    plan = HostilePlan("ws://there:1", (Strike("kill", 1.0, 2.0), Strike("flood", 2.0, 3.0)), "speech", "tokens")
    assert HostilePlan.from_json(plan.to_json()) == plan


def row(p99: float | None, most: float | None = None, **others) -> dict:
    return {"late_ms": {"p99": p99, "max": most}, "sessions": 2, "held": 2, "server_resident_mb": 100, **others}


def test_a_phase_meets_the_target_up_to_one_step_above_calm() -> None:
    _, near, far, lost = compared_with_calm([row(50.0, 60.0), row(70.0, 80.0), row(70.1, 50.0), row(None)], 20.0)
    assert near["p99_more_ms"] == near["max_more_ms"] == 20.0 and near["p99_within"] and near["max_within"]
    assert not far["p99_within"] and far["max_within"]
    assert not lost["p99_within"] and not lost["max_within"], "what did not come is not within anything"


def test_lost_sessions_growth_and_held_resources_are_faults() -> None:
    back, not_back = {"is_back": True}, {"is_back": False}
    assert judged([row(1.0), row(1.0)], back) == []
    assert len(judged([row(1.0, held=1), row(1.0, server_resident_mb=101 + MAX_GROWTH_MB)], not_back)) == 3


async def struck(host: Host, attack: str, seconds: float) -> dict[str, int]:
    target = Target.of(host.url, bytes(64_000), bytes(200))
    counts = await asyncio.wait_for(strike(target, attack, time.monotonic() + seconds), 10.0)
    await host.emptied()
    return counts


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param("stall", marks=SLOW),
        "flood",
        "controls",
        pytest.param("tiny", marks=SLOW),
        "malformed",
        "slowloris",
    ],
)
async def test_an_attack_reaches_the_server_and_leaks_nothing(attack: str) -> None:
    options = {"max_sessions": 16, "close_timeout_s": 0.1, "max_messages_per_s": 5000.0, "ping_interval_s": 1.0}
    with hosted(FakeRunner(slots=16), **options) as host:
        counts = await struck(host, attack, 0.4)
        assert attack == "slowloris" or counts["HTTP 101"] >= 2
        assert attack not in ("stall", "flood", "controls", "tiny") or counts["bytes sent"] > 65_536


async def test_every_attempt_at_a_full_server_gets_a_status() -> None:
    with hosted(FakeRunner(), max_sessions=3, close_timeout_s=0.1) as host:
        counts = await struck(host, "attempts", 0.4)
        assert counts["idle sessions"] == 3 and counts["attempts"] > 50
        assert min(counts[f"HTTP {status}"] for status in (400, 404, 503)) > 3


@pytest.mark.slow
def test_a_run_against_its_own_server_is_verified_and_reported(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("NEUCODEC_RESUME_S", "1")  # what is killed is not waited for
    monkeypatch.setattr(load, "PHASES_S", 0.1)
    speaker = tmp_path / "eval" / "speaker"
    speaker.mkdir(parents=True)
    soundfile.write(speaker / "a.wav", speechlike(1.0), 16_000)
    out = tmp_path / "hostile.json"
    flags = "--sessions 2 --seconds 1 --clips 1 --attacks kill flood malformed --max-load 1e9"
    assert main([*flags.split(), "--model", str(GOLDEN), "--data", str(tmp_path), "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert [one["phase"] for one in result["rows"]] == [CALM, "kill", "flood", "malformed", CALM_AGAIN]
    assert all(one["late_ms"]["count"] > 5 and one["held"] == 2 for one in result["rows"])
    assert result["counts"]["kill"]["killed"] >= 2 and result["counts"]["malformed"]["HTTP 101"] > 10
    assert result["server"]["is_back"] and not result["verified"]["failed"] and result["verified"]["pinned"]
    printed = capsys.readouterr().out
    assert "every output is right" in printed and all(attack in ATTACKS for attack in result["counts"])
