"""Preparation keeps the two rates aligned and the split clean; batches depend on their generator alone."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from neucodec_streaming.errors import ConfigError
from training.data import HELD_OUT_EVERY, Speech, prepare

COLUMNS = "path\tcorpus\tspeaker\tlanguage\tlicence\tsource_rate\tseconds"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder: 32 speakers of librispeech at 16 kHz and one of another corpus at 24 kHz, 0.5 s each."""
    root = tmp_path_factory.mktemp("speech")
    rows = [COLUMNS, "eval/never.flac\tlibrispeech\tx\ten\tnone\t16000\t1"]
    (root / "train").mkdir()
    speakers = [(f"s{i}", "librispeech", 16_000) for i in range(HELD_OUT_EVERY["librispeech"])]
    for speaker, corpus, rate in [*speakers, ("full", "other", 24_000)]:
        tone = 0.5 * np.sin(2 * np.pi * 440.0 * np.arange(rate // 2) / rate)
        soundfile.write(root / "train" / f"{speaker}.wav", tone, rate)
        rows.append(f"train/{speaker}.wav\t{corpus}\t{speaker}\ten\tnone\t{rate}\t0.5")
    (root / "MANIFEST.tsv").write_text("\n".join(rows) + "\n")
    prepare(root, root / "work")
    return root / "work"


def test_training_and_held_out_speakers_are_disjoint_and_evaluation_is_not_read(work: Path) -> None:
    training = {r.speaker for r in Speech(work, held_out=False).recordings}
    held_out = {r.speaker for r in Speech(work, held_out=True).recordings}
    assert len(training) == 32 and len(held_out) == 1
    assert not training & held_out and "x" not in training | held_out


def test_crops_at_both_rates_are_aligned(work: Path) -> None:
    speech = Speech(work, held_out=False)
    heard, target = speech.whole(speech.recordings[0], 25)
    assert (len(heard), len(target)) == (25 * 320, 25 * 480)
    np.testing.assert_allclose(heard[200:-200:2][:3000], target[300:-300:3][:3000], atol=2e-3)


def test_equal_generators_give_equal_batches(work: Path) -> None:
    speech = Speech(work, held_out=False)
    first, second = (speech.batch(np.random.default_rng(3), 4, 10, (-20.0, 3.0)) for _ in range(2))
    assert first.heard.shape == (4, 11 * 320) and first.target.shape == (4, 10 * 480)
    np.testing.assert_array_equal(first.heard, second.heard)
    np.testing.assert_array_equal(first.bandwidth_hz, second.bandwidth_hz)


def test_without_a_manifest_all_recordings_are_used_and_the_last_is_held_out(tmp_path: Path) -> None:
    for speaker, rate in (("a", 16_000), ("b", 48_000)):
        (tmp_path / speaker).mkdir()
        soundfile.write(tmp_path / speaker / "x.wav", np.zeros(rate), rate)
    prepare(tmp_path, tmp_path / "work")
    training, held_out = (Speech(tmp_path / "work", held_out=flag).recordings for flag in (False, True))
    assert [(r.speaker, r.bandwidth_hz) for r in training] == [("a", 8_000)]
    assert [(r.speaker, r.bandwidth_hz) for r in held_out] == [("b", 12_000)]


def test_a_folder_without_audio_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=str(tmp_path)):
        prepare(tmp_path, tmp_path / "work")
