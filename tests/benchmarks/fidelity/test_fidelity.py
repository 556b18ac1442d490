"""The fidelity report measures every point both ways, and its check list names results and failures."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("pesq", reason="PESQ is not installed: it needs a C compiler")

from benchmarks.common import recordings
from benchmarks.fidelity.batched_streams import stream_all
from benchmarks.fidelity.references import references
from benchmarks.fidelity.report import check_list, recommendation
from benchmarks.fidelity.tasks import grid, measured, paired, way_of
from neucodec_streaming import StreamConfig
from tests.conftest import ROOT
from tests.streaming.models import GOLDEN, codec_of, recording

DEFAULT = StreamConfig(5, 5, 250, 12.0)


def row(way: str, config: StreamConfig = DEFAULT, **changed: object) -> dict:
    streamed = way == "streamed"
    values = {
        "way": way,
        "chunk_frames": None if way == "NeuTTS" else config.chunk_frames,
        "lookahead_frames": None if way == "NeuTTS" else config.lookahead_frames,
        "context_frames": config.context_frames if streamed else None,
        "prior_weight": config.prior_weight if streamed else None,
        "encode_ms": config.encode_latency_ms,
        "decode_ms": config.decode_latency_ms,
        "set": "speech",
        "part": "whole",
        "levels_equal": 0.9 if streamed else 0.8,
        "levels_within_1": 0.995,
        "log_mel": 0.1 if streamed else 0.2,
        "snr_db": 15.0 if streamed else 12.0,
        "seam": 1.01,
        "seam_error": 0.01,
        "stoi": 0.85 if streamed else 0.84,
        "pesq": 1.30 if streamed else 1.25,
        "stoi_loss": 0.003,
        "pesq_loss": 0.01,
        "stoi_loss_error": 0.001,
        "pesq_loss_error": 0.01,
        "decoded_stoi": 0.855,
        "decoded_pesq": 1.31,
    }
    return values | changed


def test_a_grid_begins_with_the_default_and_varies_along_each_axis() -> None:
    points = grid("small", DEFAULT)
    assert points[0] == DEFAULT and len(set(points)) == len(points)
    assert grid("default", DEFAULT) == [DEFAULT]
    for point in points:
        same = [
            (point.chunk_frames, point.lookahead_frames) == (5, 5),
            point.context_frames == 250,
            point.prior_weight == 12,
        ]
        assert sum(same) >= 2
    assert set(points) < set(grid("full", DEFAULT))


def test_the_check_list_has_no_miss_if_all_targets_are_met() -> None:
    checks = check_list([row("streamed"), row("sliding"), row("NeuTTS")], row("streamed"))
    assert checks and all(check["met"] for check in checks)


@pytest.mark.parametrize(
    ("measure", "value", "target"),
    [
        ("stoi_loss", 0.006, "STOI"),
        ("pesq_loss", 0.04, "PESQ"),
        ("levels_within_1", 0.94, "95%"),
        ("seam", 1.06, "seam"),
        ("seam", 0.94, "seam"),
        ("decoded_stoi", 0.84, "NeuTTS"),
        ("log_mel", 0.3, "log_mel"),
        ("decode_ms", 220.0, "decode latency"),
    ],
)
def test_a_missed_target_is_named_with_its_value(measure: str, value: float, target: str) -> None:
    checks = check_list([row("streamed", **{measure: value}), row("sliding"), row("NeuTTS")], row("streamed"))
    missed = [check for check in checks if not check["met"]]
    assert missed and any(target in check["target"] for check in missed)


def test_rows_where_the_window_is_better_are_named() -> None:
    part = {"part": "last 300 ms", "stoi": None, "pesq": None}
    rows = [
        row("streamed"),
        row("sliding"),
        row("NeuTTS"),
        row("streamed", **part),
        row("sliding", snr_db=20.0, **part),
    ]
    (missed,) = (check for check in check_list(rows, row("streamed")) if not check["met"])
    assert missed["measured"] == "1 of 2, not on speech last 300 ms"


def test_the_cheapest_point_that_meets_the_targets_is_recommended() -> None:
    points = {(2, 8): 0.003, (5, 5): 0.004, (8, 2): 0.02, (5, 15): 0.0}
    rows = [
        row("streamed", replace(DEFAULT, chunk_frames=chunk, lookahead_frames=ahead), stoi_loss=loss)
        for (chunk, ahead), loss in points.items()
    ]
    assert "chunk 5, lookahead 5" in recommendation(rows)
    assert "no more targets" in recommendation([row("streamed", stoi_loss=0.1)])


def test_losses_are_paired_and_skip_missing_measurements() -> None:
    own = [{"stoi": 0.8, "pesq": None}, {"stoi": 0.7, "pesq": 1.2}]
    offline = [{"stoi": 0.9, "pesq": 1.5}, {"stoi": 0.7, "pesq": 1.3}]
    losses = paired({"": own}, offline)
    assert losses["stoi"] == pytest.approx(0.75) and losses["stoi_loss"] == pytest.approx(0.05)
    assert losses["pesq"] == pytest.approx(1.2) and losses["pesq_loss"] == pytest.approx(0.1)


def test_recordings_measured_together_give_the_output_of_separate_streams() -> None:
    codec, config = codec_of("golden"), StreamConfig(3, 1, 50)
    inputs = [recording(length) for length in (4_000, 9_137, 300, 640, 7_000)]
    together = stream_all(codec.encoder(config), inputs, rows=2)
    for pcm, pieces in zip(inputs, together, strict=True):
        stream = codec.encoder_stream(config)
        alone = np.concatenate([stream.feed(pcm), stream.flush()])
        assert sum(map(len, pieces)) == len(alone) == len(pcm) // 320
        assert not len(alone) or (np.concatenate(pieces) == alone).mean() > 0.95  # other kernels may round otherwise


@pytest.mark.parametrize("name", ["streamed", "sliding", "NeuTTS"])
def test_every_codec_has_rows_for_the_whole_and_its_parts(name: str) -> None:
    codec = codec_of("golden")
    way = way_of(codec, name, StreamConfig(5, 5, 50))
    rows = measured(way, "speech", references(codec, [recording(16_137)]))
    assert [one["part"] for one in rows] == ["whole", "first 300 ms", "middle", "last 300 ms"]
    assert all(0 <= one["levels_equal"] <= 1 and np.isfinite(one["snr_db"]) for one in rows)
    assert {"seam", "stoi", "pesq", "decoded_stoi"} <= set(rows[0])
    assert all(seconds > 0 for seconds in way.costs().values())


@pytest.mark.parametrize("name", list(recordings.HARD_CASES))
def test_hard_cases_are_valid_stream_input(name: str) -> None:
    pcm = recording(16_137)
    hard = recordings.HARD_CASES[name](pcm)
    assert hard.dtype == np.float32 and np.isfinite(hard).all() and not np.array_equal(hard, pcm)
    assert len(hard) >= len(pcm) // 2


def test_hard_cases_have_the_named_property() -> None:
    pcm = recording(16_137)
    assert np.abs(recordings.quiet(pcm)).max() == pytest.approx(0.01 * np.abs(pcm).max())
    assert (np.abs(recordings.loud(pcm)) == 1).sum() > 1
    assert not recordings.with_silence(pcm)[:16_000].any() and len(recordings.with_silence(pcm)) == len(pcm) + 32_000
    assert recordings.with_dc_offset(pcm).mean() == pytest.approx(pcm.mean() + 0.1, abs=1e-4)


def test_a_thinned_list_is_spread_over_the_whole() -> None:
    assert recordings.thinned(list(range(10)), 4) == [0, 2, 5, 7]
    assert recordings.thinned([1, 2], 5) == recordings.thinned([1, 2], 0) == [1, 2]


@pytest.mark.servers
def test_the_command_prints_a_report_and_writes_it_with_its_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for speaker in ("a", "b"):
        (tmp_path / "eval" / speaker).mkdir(parents=True)
        soundfile.write(tmp_path / "eval" / speaker / "1.wav", recording(24_000), 16_000)
    out = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.fidelity", "--model", GOLDEN, "--data", tmp_path, "--grid", "default"]
    done = subprocess.run(
        [*command, "--processes", "2", "--out", out], cwd=ROOT, capture_output=True, text=True, check=True
    )
    report = json.loads(out.read_text())
    assert {one["way"] for one in report["rows"]} == {"streamed", "sliding", "NeuTTS"}
    assert {one["set"] for one in report["rows"]} == {"speech", *recordings.HARD_CASES, "long"}
    assert out.with_suffix(".png").stat().st_size > 10_000
    assert "Targets at the default point" in done.stdout
