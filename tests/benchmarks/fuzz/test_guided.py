"""The search by coverage runs on every target's terms, tells what breaks, and writes what it found."""

import json
from pathlib import Path

import pytest

from benchmarks.fuzz.guided import main

pytest.importorskip("atheris", reason="the extra `fuzz` is not installed")


@pytest.mark.slow
def test_a_search_reaches_new_code_and_writes_its_result(tmp_path: Path) -> None:
    out = tmp_path / "guided.json"
    assert main(["--targets", "client_message", "--runs", "2000", "--seconds", "20", "--out", str(out)]) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert row["runs"] >= 2000 and row["branches"] > row["branches_at_first"] > 0 and not row["broken"]


@pytest.mark.slow
def test_a_target_that_fails_to_run_counts_as_broken(tmp_path: Path) -> None:
    out = tmp_path / "guided.json"
    assert main(["--targets", "nothing_of_the_kind", "--runs", "1", "--out", str(out)]) == 1
