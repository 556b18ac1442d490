"""The processor share of other programs."""

import os

import pytest

from neucodec_streaming.server import other_load
from neucodec_streaming.server.other_load import OtherLoad


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Four processors of a larger machine; the test writes their accumulated processor time."""
    ticks, clock, own = os.sysconf("SC_CLK_TCK"), [0.0], [0.0]
    monkeypatch.setattr(other_load, "_STAT", tmp_path / "stat")
    monkeypatch.setattr(other_load, "_processors", lambda: {0, 2, 3, 5})
    monkeypatch.setattr(other_load.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(other_load, "_own_s", lambda: own[0])

    def at(now_s: float, busy_s: float, own_s: float) -> None:
        clock[0], own[0] = now_s, own_s
        (tmp_path / "stat").write_text(
            f"cpu 9 9 9 9 9 9 9 9 9 9\ncpu1 77 0 0 0 0 0 0 0 0 0\ncpu2 {round(busy_s * ticks)} 0 0 999 5 0 0 0 0 0\n"
        )

    return at


def test_the_share_is_the_processor_time_of_other_programs(machine):
    machine(0.0, 100.0, 10.0)
    load = OtherLoad()
    machine(10.0, 130.0, 20.0)  # 30 s of processor time, 10 of them ours, in 40 s
    assert load.share() == pytest.approx(0.5)
    machine(10.0, 110.0, 20.0)
    assert load.share() == 0.0


def test_a_system_without_load_figures_counts_as_idle(monkeypatch, tmp_path):
    monkeypatch.setattr(other_load, "_STAT", tmp_path / "missing")
    assert OtherLoad().share() == 0.0
