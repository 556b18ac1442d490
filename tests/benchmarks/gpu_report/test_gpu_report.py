"""The report runs on the software device and reports failures."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks.gpu_report.__main__ import ORDER, report, run_all
from benchmarks.gpu_report.stages import STAGES

COMMAND = [sys.executable, "-m", "tests.benchmarks.gpu_report.dry_run"]


def test_the_order_lists_every_stage() -> None:
    assert tuple(STAGES) == ORDER


@pytest.mark.servers
def test_every_stage_writes_its_results(tmp_path: Path, compiled: None) -> None:
    run_all([*COMMAND, str(tmp_path)], ORDER, dict.fromkeys(ORDER, 300.0), tmp_path)
    found = json.loads((tmp_path / "report.json").read_text())
    assert [found["run"][stage] for stage in ORDER] == ["done"] * len(ORDER)
    wrong = {what for stage in ORDER for what, value in found[stage].items() if value is False}
    assert not {what for what in wrong if "in time" not in what}, "the software device may be too slow for that alone"
    assert found["machine"]["device"] == "software" and found["resets"]["encode: bytes of a slot"] > 0
    assert (
        found["replay"]["bfloat16: replayed equals eager"]
        and found["attention"]["bfloat16: attention is right to 0.04"]
    )
    assert found["steps"]["decode bfloat16, 1 rows, ms"] > 0 and found["start_up"]["seconds of capturing"] > 0
    assert "decode, 1 rows: kernels" in found["kernels"] and "1 passed" in found["laws"]["their output"][-1]
    assert any("milliseconds of the host" in line for line in found["capacity"]["its output"])
    assert found["live"]["1 decode sessions: held"] == "1"
    assert "| device | software |" in (tmp_path / "report.md").read_text()


def test_a_stage_that_fails_or_takes_too_long_is_named_and_the_others_run(tmp_path: Path, capsys) -> None:
    program = (
        "import sys, time, json; name = sys.argv[-1];"
        "name == 'laws' and time.sleep(60); name == 'replay' and sys.exit(3);"
        f"open({str(tmp_path)!r} + '/' + name + '.jsonl', 'w').write(json.dumps(['fits', name == 'steps']))"
    )
    stages = ["replay", "laws", "steps", "resets"]
    limits = dict.fromkeys(stages, 60.0) | {"laws": 0.5}
    assert not run_all([sys.executable, "-c", program], stages, limits, tmp_path)
    said = capsys.readouterr().out
    assert "replay: FAILED with exit code 3" in said and "laws: FAILED: stopped" in said and "resets: fits" in said
    assert "steps: fits" not in said


def test_a_table_has_a_line_for_every_finding() -> None:
    assert "| a / b | 0.5 |" in report({"steps": {"a / b": 0.5}})
