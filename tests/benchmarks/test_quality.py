"""The measure of quality compares what it says, aligned, and averages over what there is."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

pytest.importorskip("pesq", reason="PESQ is not installed: it needs a C compiler")

from benchmarks.quality import compare, mean, measure_all, table
from benchmarks.recordings import recordings


def speechlike(seconds: float = 2.0) -> np.ndarray:
    """Harmonics with syllables, float32 at 16 kHz."""
    t = np.arange(int(16_000 * seconds)) / 16_000
    voice = sum(np.sin(2 * np.pi * 140 * k * t + k) / k for k in range(1, 30))
    return (0.1 * voice * np.abs(np.sin(2 * np.pi * 2.1 * t))).astype(np.float32)


def copied(_: object, pcm: np.ndarray) -> np.ndarray:
    """A codec that loses nothing but the rest of the last hop."""
    return soxr.resample(pcm[: len(pcm) // 320 * 320], 16_000, 24_000)


def replaced_by_noise(_: object, pcm: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(len(pcm) // 320 * 480).astype(np.float32) * 0.1


def test_a_perfect_copy_scores_the_maximum_and_noise_does_not() -> None:
    pcm = speechlike()[:-7]  # not a whole number of hops
    perfect, noise = (compare(pcm, way(None, pcm)) for way in (copied, replaced_by_noise))
    assert perfect["stoi"] > 0.999 and perfect["pesq"] > 4.5
    assert noise["stoi"] < 0.5 and noise["pesq"] < 1.5


def test_means_leave_out_what_could_not_be_measured() -> None:
    scores = [{"pesq": None}, {"pesq": 1.0}, {"pesq": 2.0}]
    assert mean(scores, "pesq") == 1.5
    assert mean(scores[:1], "pesq") is None


def test_the_table_has_a_row_a_speaker_and_one_over_all_files(tmp_path: Path) -> None:
    for speaker, files in (("a", 2), ("b", 1)):
        (tmp_path / "eval" / speaker).mkdir(parents=True)
        for index in range(files):
            soundfile.write(tmp_path / "eval" / speaker / f"{index}.wav", speechlike(), 16_000)
    ways = {"offline": copied}
    rows = table(measure_all(None, recordings(tmp_path), ways), ways)
    assert [(row["speaker"], row["files"]) for row in rows] == [("a", 2), ("b", 1), ("all", 3)]
    assert all(row["offline stoi"] > 0.999 for row in rows)


def test_an_empty_folder_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--data"):
        recordings(tmp_path)
