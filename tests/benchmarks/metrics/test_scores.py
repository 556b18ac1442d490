"""The scores compare what they say, aligned: a perfect copy has the best of each, noise has not."""

import numpy as np
import pytest

pytest.importorskip("pesq", reason="PESQ is not installed: it needs a C compiler")

from benchmarks.metrics.scores import compare, log_mel_distance, mean, nearness_of
from tests.benchmarks.speechlike import copied, replaced_by_noise, speechlike


def test_a_perfect_copy_scores_the_maximum_and_noise_does_not() -> None:
    pcm = speechlike()[:-7]  # not a whole number of hops
    perfect, noise = (compare(pcm, way(pcm)[1]) for way in (copied, replaced_by_noise))
    assert perfect["stoi"] > 0.999 and perfect["pesq"] > 4.5
    assert noise["stoi"] < 0.5 and noise["pesq"] < 1.5


def test_identical_audio_has_no_distance_and_full_scores() -> None:
    pcm = speechlike()
    scores = nearness_of(pcm, pcm)
    assert scores["stoi"] > 0.999999 and scores["estoi"] > 0.999999
    assert scores["pesq"] > 4.6
    assert scores["log_mel"] == 0


def test_half_the_level_is_a_log_mel_distance_of_ln_2() -> None:
    pcm = np.random.default_rng(0).standard_normal(16_000).astype(np.float32) * 0.1  # nothing of it is near the floor
    assert log_mel_distance(pcm, pcm / 2) == pytest.approx(np.log(2), rel=1e-3)


def test_differences_60_db_below_the_original_are_ignored() -> None:
    pcm = speechlike()
    assert log_mel_distance(pcm, pcm + np.float32(1e-7)) < 1e-3


def test_means_skip_missing_measurements() -> None:
    scores = [{"pesq": None}, {"pesq": 1.0}, {"pesq": 2.0}, {}]
    assert mean(scores, "pesq") == 1.5
    assert mean(scores[:1], "pesq") is None
