"""The measures of fidelity are zero for what is equal, grow with what differs, and find a click between two steps."""

import numpy as np
import pytest

from benchmarks.metrics.nearness import (
    END,
    START,
    border_energies,
    level_differences,
    log_mel_distances,
    nearness,
    seam_measures,
    seams_of,
)

FRAMES = 60


def noise(seed: int = 0, frames: int = FRAMES) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(frames * 480)).astype(np.float32)


def in_steps(audio: np.ndarray, frames: int = 5) -> list[np.ndarray]:
    return [audio[start : start + frames * 480] for start in range(0, len(audio), frames * 480)]


def test_a_token_is_eight_levels_of_two_bits() -> None:
    tokens = np.array([0x0000, 0x1234, 0xFFFF], np.uint16)
    differences = level_differences(tokens, np.array([0x0003, 0x1234, 0x7FFF], np.uint16))
    assert differences.tolist() == [[3, 0, 0, 0, 0, 0, 0, 0], [0] * 8, [0, 0, 0, 0, 0, 0, 0, 2]]


def test_the_distance_of_equal_audio_and_tokens_is_zero() -> None:
    tokens, audio = np.arange(FRAMES, dtype=np.uint16), noise()
    measures = nearness(tokens, audio, tokens, audio).measures()
    assert measures["levels_equal"] == measures["levels_within_1"] == measures["tokens_equal"] == 1
    assert measures["log_mel"] == 0 and measures["snr_db"] > 50


def test_the_log_mel_distance_of_a_gain_is_its_logarithm() -> None:
    audio = noise()
    assert log_mel_distances(audio * 1.1, audio).mean() == pytest.approx(np.log(1.1), rel=1e-3)


def test_sound_60_db_below_the_loudest_is_ignored() -> None:
    audio = np.concatenate([noise(), np.zeros(20 * 480, np.float32)])
    hiss = np.concatenate([np.zeros(FRAMES * 480, np.float32), 1e-5 * noise(1, 20)])
    assert log_mel_distances(audio + hiss, audio)[FRAMES + 1 :].max() == 0


def test_snr_is_the_ratio_of_signal_to_error() -> None:
    tokens, audio = np.zeros(FRAMES, np.uint16), noise()
    assert nearness(tokens, audio + 0.1 * noise(1), tokens, audio).measures()["snr_db"] == pytest.approx(20, abs=0.2)


def test_silence_that_stays_silent_has_a_finite_snr() -> None:
    tokens, silence = np.zeros(FRAMES, np.uint16), np.zeros(FRAMES * 480, np.float32)
    assert nearness(tokens, silence, tokens, silence).measures()["snr_db"] == 0


def test_parts_are_measured_separately() -> None:
    tokens, audio = np.zeros(FRAMES, np.uint16), noise()
    wrong = tokens.copy()
    wrong[:15] = 0xFFFF
    near = nearness(wrong, audio, tokens, audio)
    assert near.measures(START)["levels_within_1"] == 0 and near.measures(END)["levels_equal"] == 1


def test_the_seam_measure_of_seamless_audio_is_1() -> None:
    parts = [seams_of(in_steps(noise(seed)), noise(seed)) for seed in range(20)]
    measured = seam_measures(parts)
    assert measured["seam"] == 1 and measured["seam_error"] == 0
    assert measured["seam_offline"] == pytest.approx(1, abs=0.1)


def test_a_click_is_found_only_at_a_boundary_between_steps() -> None:
    audio = noise()
    for place, found in ((5 * 480, True), (7 * 480, False), (5 * 480 + 200, False)):
        clicked = audio.copy()
        clicked[place:] += 0.5
        seam = seam_measures([seams_of(in_steps(clicked), audio)])["seam"]
        assert seam is not None and (seam > 1.05) == found


def test_seams_are_measured_relative_to_the_local_level() -> None:
    audio = np.concatenate([noise(), 0.01 * noise(1)])
    clicked = audio.copy()
    clicked[10 * 480 :] += 5
    clicked[(FRAMES + 10) * 480 :] += 0.05
    energies = border_energies(clicked, audio)
    assert energies[9] == pytest.approx(energies[FRAMES + 9], rel=0.5)


def test_the_seam_measure_is_undefined_if_every_hop_ends_a_step() -> None:
    assert seam_measures([seams_of(in_steps(noise(), 1), noise())])["seam"] is None
