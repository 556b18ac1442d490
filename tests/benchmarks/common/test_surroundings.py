"""Metadata of every report."""

import json
import os

from benchmarks.common.surroundings import write_report


def test_a_report_has_date_commit_and_machine(tmp_path, capsys) -> None:
    path = tmp_path / "new" / "report.json"
    write_report(path, {"rows": [1], "device": "another device"})
    report = json.loads(path.read_text())
    assert report["date"] and report["commit"] and report["torch"] and report["cores"] == os.cpu_count()
    assert report["rows"] == [1] and report["device"] == "another device"
    assert str(path) in capsys.readouterr().out
