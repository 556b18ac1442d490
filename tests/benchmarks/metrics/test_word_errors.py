"""Edits are the fewest, rates are of the whole set, and a recogniser that is not installed is a skip."""

from pathlib import Path

import pytest

pytest.importorskip("pesq", reason="PESQ is not installed: it needs a C compiler")

from benchmarks.common.recordings import load
from benchmarks.metrics.word_errors import PARTS, Recogniser, edits, error_rate, read_texts, word_errors, words_of

CLIP = Path(__file__).resolve().parents[3] / "demos" / "data" / "speech.flac"
MEANT = ["the", "cat", "sat"]


@pytest.mark.parametrize(
    ("heard", "count"),
    [
        ("the cat sat", 0),
        ("", 3),
        ("the cat", 1),
        ("the big cat sat", 1),
        ("the hat sat", 1),
        ("cat the sat", 2),
        ("a b c d e", 5),
        ("sat", 2),
    ],
)
def test_edits_are_the_fewest_insertions_removals_and_replacements(heard: str, count: int) -> None:
    assert edits(heard.split(), MEANT) == count


def test_the_error_rate_is_over_all_words_and_not_a_mean_of_rates() -> None:
    scores = [word_errors(["a"], None, ["b"]), word_errors(["a"] * 9, None, ["a"] * 9)]
    assert error_rate(scores, "own") == pytest.approx(0.1)
    assert error_rate(scores, "text") is None


def test_a_hallucinated_repetition_counts_as_nothing_recognised() -> None:
    scores = [word_errors(["a"] * 50, None, ["b", "c"]), word_errors(["a", "a"], None, ["a", "a"])]
    assert error_rate(scores, "own") == pytest.approx(0.5)


def test_files_without_text_do_not_count_in_the_rate_against_texts() -> None:
    scores = [word_errors(["a"], ["b"]), word_errors(["a"], None)]
    assert error_rate(scores, "text") == 1.0


def test_words_are_compared_without_case_and_punctuation() -> None:
    assert words_of("It's TIM'S -- 'cloth', 42.") == ["it's", "tim's", "cloth", "42"]
    assert words_of("L'été, übermäßig!") == ["l'été", "übermäßig"]


def test_texts_are_lines_of_file_and_text(tmp_path: Path) -> None:
    (tmp_path / "texts.tsv").write_text("a.flac\tHello there\nb.flac\t\n")
    assert read_texts(tmp_path / "texts.tsv") == {"a.flac": ["hello", "there"], "b.flac": []}
    assert read_texts(tmp_path / "none.tsv") == {}
    (tmp_path / "texts.tsv").write_text("a.flac Hello\n")
    with pytest.raises(ValueError, match=r"texts\.tsv:1"):
        read_texts(tmp_path / "texts.tsv")


@pytest.mark.slow
def test_recognition_does_not_depend_on_earlier_recordings() -> None:
    for package in ("faster_whisper", *PARTS):
        pytest.importorskip(package, reason=f"{package} is not installed")
    clip = load(CLIP)[: 4 * 16_000]
    recogniser = Recogniser()
    first = recogniser.words(clip)
    recogniser.words(clip[::-1] * 0.1)
    assert first and recogniser.words(clip, recogniser.language(clip)) == first
