"""The curve counts the hours of all runs, and its fit finds the gain for ten times the hours."""

import json
from pathlib import Path

import numpy as np
import pytest

from training.curve import fitted, points
from training.train import Schedule


def test_hours_include_earlier_runs_and_the_steps_of_this_one(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    entries = [{"step": 0, "stoi": 0.8, "pesq": 1.4}, {"step": 25, "mel": 0.5}, {"step": 450, "stoi": 0.9, "pesq": 1.5}]
    log.write_text("\n".join(map(json.dumps, entries)) + "\n")
    found = points(log, heard_before=44.0)
    assert found["hours"].tolist() == pytest.approx([44.0, 44.0 + 450 * Schedule.frames_per_batch / 50 / 3600])
    assert found["pesq"].tolist() == [1.4, 1.5]


def test_the_fit_recovers_the_gain_per_tenfold_hours() -> None:
    hours = np.array([10.0, 20.0, 40.0, 80.0])
    assert fitted(hours, 0.7 + 0.05 * np.log10(hours)) == pytest.approx((0.7, 0.05))
