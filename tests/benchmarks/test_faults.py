"""The benchmark of faults judges by what was said. Its short version is tests/client/test_resume_against_server.py."""

import pytest

from benchmarks.faults import Trial


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
def test_a_trial_is_as_told_when_what_it_lacks_was_said(resumed, counts, told):
    assert Trial("cut", "encode", resumed, **counts).is_told is told
