"""The measure of endurance finds what drifts, and nothing where nothing does."""

from itertools import islice

import numpy as np
import pytest

from benchmarks import endurance
from benchmarks.endurance import MAX_ERROR, RISES, endless, packets, rows, verdicts
from neucodec_streaming import load_codec
from tests.streaming.models import GOLDEN, recording


def flat_table(minutes: int = 10) -> list[dict[str, float]]:
    row = {"encode_ms": 10.0, "decode_ms": 5.0, "rss_bytes": 5e8, "mel_error": 1e-6, "group_norm_error": 1e-6}
    return [dict(row) for _ in range(minutes)]


def not_flat(table: list[dict[str, float]]) -> list[str]:
    return [one["of"] for one in verdicts(table) if not one["flat"]]


@pytest.mark.slow
def test_a_short_stream_has_correct_statistics_and_wrong_ones_are_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = load_codec(GOLDEN)
    steps = rows(codec, [recording()], chunks=10)
    table = list(islice(steps, 3))
    assert all(tuple(row) == tuple(RISES) for row in table)
    assert all(0 < row["mel_error"] < 1e-4 and 0 < row["group_norm_error"] < 1e-4 for row in table)
    watches: list[endurance.Watch] = []
    monkeypatch.setattr(endurance.Watch, "error", lambda watch: watches.append(watch) or 0.0)
    next(steps)
    monkeypatch.undo()
    for watch in watches:
        assert watch._state is not None
        watch._state.mean[0] += 0.01 * watch._state.variance[0].sqrt()
        assert watch.error() > MAX_ERROR


def test_the_stream_of_recordings_is_endless_and_has_quiet_passages() -> None:
    pcm = np.full(1000, 0.5, np.float32)
    first, second, third = islice(endless([pcm, -pcm]), 3)
    assert np.abs(first[:1000]).max() < 0.01 and not first[1000:].any()
    assert (second == -pcm).all() and (third == pcm).all()


def test_packets_lose_nothing() -> None:
    pcm = np.arange(1000, dtype=np.float32)
    cut = list(packets([pcm[:300], pcm[300:310], pcm[310:]], 70))
    assert all(len(packet) == 70 for packet in cut)
    np.testing.assert_array_equal(np.concatenate(cut), pcm[:980])


def test_a_flat_run_passes_even_with_one_outlier() -> None:
    table = flat_table()
    table[0]["rss_bytes"], table[5]["decode_ms"] = 1e8, 50.0
    assert not_flat(table) == []


@pytest.mark.parametrize(("name", "a_minute"), [("encode_ms", 0.2), ("decode_ms", 0.1), ("rss_bytes", 1e6)])
def test_a_rising_column_is_not_flat(name: str, a_minute: float) -> None:
    table = flat_table()
    for minute, row in enumerate(table):
        row[name] += minute * a_minute
    assert not_flat(table) == [name]


@pytest.mark.parametrize("name", ["mel_error", "group_norm_error"])
def test_statistics_that_drift_or_are_wrong_once_fail(name: str) -> None:
    table = flat_table()
    table[7][name] = 2 * MAX_ERROR
    assert not_flat(table) == [name]
    table = flat_table()
    for minute, row in enumerate(table):
        row[name] += minute * 2e-5
    assert not_flat(table) == [name]
