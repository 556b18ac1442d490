"""A quality report holds the measurements of every file, means and rates of groups, and the goals."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("pesq", reason="PESQ is not installed: it needs a C compiler")

from benchmarks.common.recordings import corpora, load, recordings
from benchmarks.quality import __main__ as quality
from benchmarks.quality.evaluation import (
    Ears,
    EvaluationRecording,
    coded_as_stream,
    damage_scores,
    measure,
    open_ears,
    ways_of,
)
from benchmarks.quality.other_codecs import OtherCodec
from benchmarks.quality.report import damage_rows, draw, goals, rows_of
from neucodec_streaming import load_codec
from tests.benchmarks.speechlike import copied, replaced_by_noise, speechlike

WAYS = {"offline": copied, "streamed": replaced_by_noise}


class Parrot(Ears):
    """Hears one word in loud audio, two in the rest, and rates by loudness."""

    def rate(self, audio: np.ndarray) -> dict:
        return {"dnsmos": float(np.abs(audio).max())}

    def words(self, audio: np.ndarray, language: str | None = None) -> list[str]:
        return ["loud"] if np.abs(audio).max() > 1 else ["not", "loud"]


class Echo(OtherCodec):
    """A lossless codec at 9 kbit/s."""

    @property
    def name(self) -> str:
        return "Codec2 1200"

    def code(self, pcm: np.ndarray) -> tuple[np.ndarray, float]:
        return pcm, 9.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of speaker a in one corpus, one of b in another."""
    lines = ["path\tcorpus\tspeaker"]
    for speaker, files, corpus in (("a", 2, "one"), ("b", 1, "two")):
        (tmp_path / "eval" / speaker).mkdir(parents=True)
        for index in range(files):
            path = f"eval/{speaker}/{index}.wav"
            soundfile.write(tmp_path / path, speechlike(1.0), 16_000)
            lines.append(f"{path}\t{corpus}\t{speaker}")
    (tmp_path / "MANIFEST.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path


def found(folder: Path) -> list[EvaluationRecording]:
    names = corpora(folder)
    return [EvaluationRecording(speaker, names[path], path, ["not"]) for speaker, path in recordings(folder)]


def entries(folder: Path, ears: Ears) -> list[dict]:
    return [measure(one, WAYS, ears, (Echo(),)).entry for one in found(folder)]


def test_each_codec_has_rows_for_speakers_corpora_and_all_files(folder: Path) -> None:
    rows = rows_of(entries(folder, Ears()))
    groups = [(row["kind"], row["group"], row["files"]) for row in rows if row["way"] == "offline"]
    expected = [("speaker", "a", 2), ("speaker", "b", 1), ("corpus", "one", 2), ("corpus", "two", 1), ("all", "all", 3)]
    assert groups == expected
    assert [row["way"] for row in rows[:4]] == ["original", "offline", "streamed", "Codec2 1200"]
    assert all(row["stoi"] > 0.999 for row in rows if row["way"] == "offline")
    assert rows[1]["kbits"] == pytest.approx(0.8)
    assert all(row["stoi"] < 0.5 for row in rows if row["way"] == "streamed")
    assert rows[3]["kbits"] == 9.0 and rows[3]["log_mel"] == 0


def test_without_rating_models_naturalness_and_word_errors_are_not_reported(folder: Path) -> None:
    original = rows_of(entries(folder, Ears()))[0]
    assert set(original) == {"kind", "group", "files", "seconds", "way"}
    assert all(check["met"] is None for check in goals(rows_of(entries(folder, Ears()))) if "word" in check["goal"])


def test_missing_packages_are_skipped_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnxruntime", "distillmos", "faster_whisper"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("benchmarks.metrics.speaker.find_spec", lambda name: None)
    ears, reasons = open_ears()
    assert ears == Ears()
    for reason, (name, package) in zip(
        reasons,
        [
            ("DNSMOS", "onnxruntime"),
            ("DistilMOS", "distillmos"),
            ("speaker similarity", "Resemblyzer"),
            ("word errors", "faster_whisper"),
        ],
        strict=True,
    ):
        assert reason.startswith(f"{name}: ") and package in reason


def test_words_are_counted_against_the_text_and_against_the_original(folder: Path) -> None:
    recording = found(folder)[0]
    loud = {"offline": lambda pcm: (np.zeros(1, np.uint16), copied(pcm)[1] * 20)}
    ways = measure(recording, loud, Parrot()).entry["ways"]
    assert (ways["original"]["text_edits"], ways["original"]["text_words"]) == (1, 1)
    assert "own_edits" not in ways["original"]  # it would be 0 by definition
    assert (ways["offline"]["text_edits"], ways["offline"]["own_edits"], ways["offline"]["own_words"]) == (1, 1, 2)


def test_a_stream_is_measured_in_every_profile() -> None:
    ways = ways_of(load_codec("nano"))
    assert list(ways) == ["offline", "streamed", "streamed low", "streamed high"]
    pcm = speechlike(0.6)
    assert {name: way(pcm)[1].size for name, way in ways.items()} == dict.fromkeys(ways, 30 * 480)


def test_goals_are_compared_with_their_own_figures() -> None:
    def row(way: str, **measures: float) -> dict:
        return {"kind": "all", "way": way, **measures}

    rows = [
        row("original", dnsmos=3.2, wer_text=0.5),
        row("offline", stoi=0.88, pesq=1.69, dnsmos=2.95, wer_text=0.65),
        row("Codec2 1200", stoi=0.8, pesq=1.8),
    ]
    met = {check["goal"]: check["met"] for check in goals(rows)}
    assert list(met.values()) == [True, False, True, False, True, False, False, True]
    rows[0]["wer_text"] = 0.49
    assert goals(rows)[-1]["met"] is False and goals(rows)[-1]["margin"] == pytest.approx(0.49 * 1.3 - 0.65)
    assert goals(rows[:2])[2]["met"] is None  # no Codec2, no verdict


def test_a_goal_that_silence_would_meet_does_not_count_as_met() -> None:
    rows = [
        {"kind": "all", "way": "original", "wer_text": 0.8},
        {"kind": "all", "way": "offline", "stoi": 0.8, "pesq": 1.2, "wer_text": 0.9},
    ]
    check = goals(rows)[-1]
    assert check["margin"] == pytest.approx(0.14) and check["met"] is None


@pytest.mark.slow
def test_damage_makes_a_stream_worse_and_bits_more_than_losses() -> None:
    codec = load_codec("nano")
    pcm = load(Path(__file__).resolve().parents[3] / "demos" / "data" / "speech.flac")
    tokens, _ = coded_as_stream(codec, codec.default_config, pcm)
    scores = {name: one["stoi"] for name, one in damage_scores(codec, "speech.flac", pcm, tokens).items()}
    assert scores["none"] > scores["1 % of bits flipped"] > scores["10 % of bits flipped"]
    assert scores["none"] > scores["5 % of tokens lost"] > scores["10 % of bits flipped"]
    rows = damage_rows([{"damaged": {name: {"stoi": value, "pesq": None} for name, value in scores.items()}}, {}])
    assert [row["damage"] for row in rows] == list(scores) and rows[0]["files"] == 1


def test_a_report_has_a_line_per_file(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = [measure(one, WAYS, Ears()) for one in found(folder)]
    drawn: list[Path] = []
    monkeypatch.setattr(quality, "spread", lambda call, items, processes: measured)
    monkeypatch.setattr(quality, "draw", lambda sounds, path: drawn.append(path))
    monkeypatch.setattr(quality, "heard", lambda settings, recording: {})
    monkeypatch.setattr(quality, "available_codecs", lambda: ([], ["nothing is installed"]))
    out = tmp_path / "out.json"
    arguments = ["quality", "--data", str(folder), "--no-listening", "--out", str(out)]
    monkeypatch.setattr("sys.argv", arguments)
    quality.main()
    result = json.loads(out.read_text())
    assert [entry["file"] for entry in result["files"]] == ["0.wav", "1.wav", "0.wav"]
    assert sum('"speaker": "' in line and '"ways"' in line for line in out.read_text().splitlines()) == 3
    assert result["code_usage"]["offline"]["tokens"] == 150 and len(result["goals"]) == 16
    assert drawn == [out.with_suffix(".png")]


@pytest.mark.slow
def test_spectrograms_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw([("a", {"original": speechlike(1.0), "offline": speechlike(1.0)})] * 2, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_an_empty_folder_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--data"):
        recordings(tmp_path)


def test_every_measured_recording_contains_the_tokens_of_each_codec(folder: Path) -> None:
    tokens = measure(found(folder)[0], WAYS, Ears()).tokens
    assert {name: len(own) for name, own in tokens.items()} == {"offline": 50, "streamed": 50}
