"""The comparison with Mimi: steps of every session, equal audio in turns, shares of one core."""

import json
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from benchmarks import mimi
from tests.streaming.models import codec_of

NEEDS = f"Mimi is in no extra: {mimi.INSTALL}"


class Fake:
    """Steps that take `encode_s` and `decode_s` of `clock`, and note their name in `order`."""

    def __init__(self, name: str, step_samples: int, times_s: tuple[float, float], clock: list, order: list) -> None:
        self.name, self.step_samples, self.times_s = name, step_samples, times_s
        self.clock, self.order = clock, order
        self.sessions = 2

    def warm_up(self) -> None:
        self.order.append("warm up")

    def encode(self) -> None:
        self.order.append(self.name)
        self.clock[0] += self.times_s[0]

    def decode(self) -> int:
        self.clock[0] += self.times_s[1]
        return self.sessions * self.step_samples


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Fake]:
    clock, order = [0.0], []
    monkeypatch.setattr(mimi.time, "process_time", lambda: clock[0])
    return {
        "ours": Fake("ours", 2400, (0.002, 0.004), clock, order),
        "mimi": Fake("mimi", 1920, (0.02, 0.028), clock, order),
    }


def test_alternating_turns_of_equal_audio_follow_the_warm_up(fakes: dict[str, Fake]) -> None:
    steps = mimi.measure(fakes, 2, turns=2)
    assert fakes["ours"].order == ["warm up", "warm up", *2 * (4 * ["ours"] + 5 * ["mimi"])]
    assert [len(taken) for taken in steps.values()] == [8, 10]


def test_a_row_is_normalised_to_one_session_and_a_second_of_audio(fakes: dict[str, Fake]) -> None:
    row = mimi.row_of(fakes, 2, turns=1)
    assert row["ours"]["encode"] == pytest.approx(0.01) and row["ours"]["decode"] == pytest.approx(0.02)
    assert row["mimi"]["both"] == pytest.approx(0.3) == row["mimi"]["both_min"]
    assert row["ratio"] == pytest.approx(0.1) == row["ratio_of_minima"]


def test_a_step_without_output_for_every_session_is_not_a_measurement(fakes: dict[str, Fake]) -> None:
    fakes["mimi"].sessions = 1
    with pytest.raises(AssertionError, match="every session"):
        mimi.measure(fakes, 2, turns=1)


@pytest.mark.parametrize(("sessions", "share", "met"), [(16, 0.03, True), (16, 0.031, False), (4, 0.01, None)])
def test_the_target_is_met_missed_or_not_measured(
    sessions: int, share: float, met: bool | None, capsys: pytest.CaptureFixture[str]
) -> None:
    target = mimi.target_of([{"sessions": sessions, "ours": {"both": share}}])
    assert target["met"] is met
    mimi.show_target(target)
    assert {True: "3.00% (at most 3%) met", False: "MISSED", None: "not measured"}[met] in capsys.readouterr().out


def test_a_row_is_shown_with_both_codecs_and_the_ratio(
    fakes: dict[str, Fake], capsys: pytest.CaptureFixture[str]
) -> None:
    mimi.show(mimi.row_of(fakes, 2, turns=1))
    ours, other = (line.split() for line in capsys.readouterr().out.splitlines())
    assert ours[:7] == ["2", "ours", "0.0100", "0.0200", "0.0300", "4", "0.100"]
    assert other[:6] == ["2", "mimi", "0.1250", "0.1750", "0.3000", "5"]


def test_a_missing_package_is_reported_with_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "moshi", None)
    for name in [name for name in sys.modules if name.startswith("moshi.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(SystemExit, match=r"pip install --no-deps moshi"):
        mimi.random_mimi()


def test_every_session_gives_a_chunk_per_step_once_the_lookahead_is_full() -> None:
    ours = mimi.Ours(codec_of("golden"), 2)
    config = codec_of("golden").default_config
    assert ours.step_samples == config.chunk_frames * 480
    samples = []
    for _ in range(3):
        ours.encode()
        samples.append(ours.decode())
    assert samples == [0, 2 * ours.step_samples, 2 * ours.step_samples], "the first chunk fills the lookahead"


@pytest.mark.slow
def test_mimi_gives_eight_codes_per_80_ms_and_keeps_state() -> None:
    pytest.importorskip("moshi", reason=NEEDS)
    model = mimi.random_mimi()
    what = mimi.about(codec_of("golden"), model)["mimi"]
    assert 79e6 < what["parameters"] < 80e6 and what["kbit_per_s"] == pytest.approx(1.1)
    with ExitStack() as streaming, torch.inference_mode():
        live = mimi.Mimi(model, 2, streaming)
        assert live.step_samples == 1920
        codes = []
        for _ in range(2):
            live.encode()
            codes.append(live.codes)
            assert live.codes.shape == (2, 8, 1) and live.decode() == 2 * 1920
        assert not torch.equal(*codes), "the same frame again, after another"
    assert not model.is_streaming


@pytest.mark.slow
def test_a_run_writes_what_it_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("moshi", reason=NEEDS)
    out = tmp_path / "mimi.json"
    monkeypatch.setattr(mimi.Mimi, "warm_up", mimi.Mimi.encode)
    monkeypatch.setattr(sys, "argv", ["mimi", "--sessions", "1", "--turns", "1", "--out", str(out)])
    mimi.main()
    result = json.loads(out.read_text())
    (row,) = result["rows"]
    assert 0 < row["ratio"] < 1 and row["mimi"]["both"] > 0 and result["target"]["met"] is None
    assert {"date", "commit", "device"} <= result.keys() and 7e6 < result["ours"]["parameters"] < 8e6
