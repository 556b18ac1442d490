"""The measure of cost measures what it says: turns, floors, when the window is left out, when doubling ends."""

from argparse import Namespace
from collections.abc import Callable

import pytest
import torch
from torch import nn

from benchmarks import cost
from tests.streaming.models import codec_of


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "TURN_S", 0.0)
    monkeypatch.setitem(cost.GEMM_SIZE, "cpu", 64)


def given(*sessions: int, budget_s: float = 60.0) -> Namespace:
    return Namespace(sessions=sessions, turns=1, budget_s=budget_s)


def fake_times(step_s: Callable[[int], float], window_s: Callable[[int], float]) -> Callable:
    """In place of `timed`: seconds by number of sessions."""

    def timed(ways: dict, turns: int, budget_s: float) -> dict[str, list[float]]:
        sessions = ways["step"].args[2]
        times = {"step": [step_s(sessions)], "window": [window_s(sessions)]}
        return {name: times[name] for name in ways}

    return timed


def test_measured_functions_alternate_after_a_warm_up_each() -> None:
    order: list[str] = []
    seconds = cost.timed({name: lambda name=name: lambda: order.append(name) for name in "ab"}, 3, 60.0)
    assert "".join(order) == "ab" + 3 * "ab"
    assert [len(times) for times in seconds.values()] == [3, 3]


def test_a_spent_budget_still_leaves_one_turn() -> None:
    assert len(cost.timed({"a": lambda: lambda: None}, 9, 0.0)["a"]) == 1


def test_steps_that_exceed_the_memory_have_no_times() -> None:
    def too_large() -> cost.TimedCall:
        raise torch.OutOfMemoryError

    assert list(cost.timed({"a": lambda: lambda: None, "b": too_large, "c": lambda: too_large}, 1, 1.0)) == ["a"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", cost.KINDS)
def test_a_row_compares_the_step_with_the_window_and_the_floor(kind: str) -> None:
    rows = list(cost.measure(codec_of("golden"), kind, given(1, 2), bytes_per_s=1e9))
    assert [row["sessions"] for row in rows] == [1, 2]
    for row in rows:
        assert row["ratio"] == pytest.approx(row["step"]["median_s"] / row["window"]["median_s"])
        assert row["rtf"] == pytest.approx(row["step"]["median_s"] / 0.1)
        assert row["floor_rtf"] == pytest.approx(max(row["floor_s"].values()) / 0.1)
    assert rows[1]["floor_s"]["operations"] == pytest.approx(2 * rows[0]["floor_s"]["operations"])
    assert rows[0]["floor_s"]["bytes"] < rows[1]["floor_s"]["bytes"] < 2 * rows[0]["floor_s"]["bytes"]


def test_the_floor_reads_every_weight_of_its_kind_once_and_counts_every_product() -> None:
    codec = codec_of("golden")
    with torch.inference_mode():
        floors = {kind: cost.floor_of(codec, kind, bytes_per_s=1.0, operations_per_s=1.0) for kind in cost.KINDS}
    shared = sum(parameter.nbytes for parameter in codec.model.quantizer.parameters())
    read = sum(parameter.nbytes for parameter in codec.model.parameters())
    assert floors["encode"].weight_bytes + floors["decode"].weight_bytes == read + shared
    layers = [module for module in codec.model.acoustic_decoder.modules() if isinstance(module, nn.Linear | nn.Conv1d)]
    operations = 2 * codec.default_config.window_frames * sum(layer.weight.numel() for layer in layers)
    assert floors["decode"].operations == pytest.approx(operations, rel=0.1)


def test_sessions_double_until_a_step_takes_as_long_as_its_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "timed", fake_times(lambda n: 0.03 * n, lambda n: 0.1))
    rows = list(cost.measure(codec_of("golden"), "decode", given(), bytes_per_s=1e9))
    assert [row["sessions"] for row in rows] == [1, 2, 4]
    assert cost.real_time_sessions(rows) == {"decode float32": 2}


def test_a_window_that_would_exceed_the_budget_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "timed", fake_times(lambda n: 0.01, lambda n: 1.0 * n))
    rows = list(cost.measure(codec_of("golden"), "decode", given(1, 4, 8, budget_s=8.0), bytes_per_s=1e9))
    assert [row["ratio"] for row in rows] == [0.01, 0.0025, None]
    assert [row["rtf"] for row in rows] == pytest.approx([0.1] * 3)


def test_targets_are_met_missed_or_not_measured() -> None:
    rows = [
        {"dtype": "bfloat16", "kind": "decode", "sessions": 8, "ratio": 0.25, "rtf": 0.9},
        {"dtype": "bfloat16", "kind": "decode", "sessions": 1, "ratio": None, "rtf": 0.4},
    ]
    checks = {(c["target"], c["dtype"]): c["met"] for c in cost.check_list(rows)}
    assert checks["ratio of decode, sessions: 8", "bfloat16"] is False
    assert checks["ratio of decode, sessions: 1", "bfloat16"] is None
    assert checks["rtf of decode, sessions: 1", "bfloat16"] is True
    assert checks["ratio of encode, sessions: 1", "float32"] is None


def test_a_report_has_the_number_of_threads() -> None:
    assert cost.about(torch.device("cpu"))["threads"] == torch.get_num_threads()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_captured_step_is_timed_on_cuda() -> None:
    from neucodec_streaming import load_codec
    from tests.streaming.models import GOLDEN

    codec = load_codec(GOLDEN, "cuda", torch.bfloat16)
    rows = list(cost.measure(codec, "decode", given(1, 2), bytes_per_s=1e12))
    assert all(row["rtf"] > 0 and row["window"] for row in rows)
