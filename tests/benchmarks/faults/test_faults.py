"""Verdicts of the fault benchmark, whose short version is tests/client/test_resume_against_server.py."""

import numpy as np
import pytest

from benchmarks.faults.__main__ import SAMPLE_TOLERANCE, Hearing, Trial


@pytest.mark.parametrize(
    ("resumed", "counts", "told"),
    [
        ([], {}, True),
        ([], {"missing": 1}, False),
        (["exact"], {"differ": 1}, False),
        (["approximate"], {"differ": 1}, True),
        (["approximate"], {"differ": 1, "doubled": 1}, False),
        (["approximate"], {"missing": 480, "gap": 480}, True),
        (["exact", "approximate"], {"missing": 480, "gap": 0}, False),
        (["new"], {}, False),
    ],
)
def test_a_trial_passes_when_its_losses_were_reported(resumed, counts, told):
    assert Trial("cut", "encode", resumed, **counts).is_told is told


def test_missing_doubled_and_different_units_are_counted():
    hearing, trial = Hearing(), Trial("cut", "decode", [])
    expected = np.arange(10, dtype=np.float32) / 32768
    hearing.pieces = [(0, expected[:4]), (3, expected[3:6]), (7, expected[7:] + np.float32([0, 1 / 32768, 0.1]))]
    hearing.compare(trial, expected)
    assert (trial.missing, trial.doubled, trial.differ) == (1, 1, 2)
    hearing.compare(trial, expected, SAMPLE_TOLERANCE)
    assert trial.differ == 1
