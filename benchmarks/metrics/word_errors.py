"""Word errors of English speech, by PocketSphinx and the en-us model that its package carries.

It is a recogniser of 2015 and needs no network. It is far weaker than those that published word error rates come from:
read its rates beside that of the original audio, never beside a paper's. True texts are a file of lines `FILE TAB
TEXT`; a folder of recordings need not have one. Rates are of a whole set: edits of all files over words of all files.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.metrics.scores import Scores
from neucodec_streaming.config import INPUT_RATE


class Recogniser:
    """The model in memory. Raises ImportError where pocketsphinx is missing."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        # Normalised within a recording: what is heard does not depend on which file came before.
        self._decoder = Decoder(samprate=INPUT_RATE, cmn="batch", loglevel="FATAL")

    def words(self, audio: np.ndarray) -> list[str]:
        """What is said in (T,) at 16 kHz, in lower case."""
        self._decoder.start_utt()
        self._decoder.process_raw((np.clip(audio, -1, 1) * 32767).astype("<i2").tobytes(), full_utt=True)
        self._decoder.end_utt()
        heard = self._decoder.hyp()
        return [] if heard is None else words_of(heard.hypstr)


def words_of(text: str) -> list[str]:
    """Words in lower case without punctuation; an apostrophe inside a word stays."""
    return re.findall(r"[a-z0-9]+(?:'[a-z]+)*", text.lower())


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
    """All edits over all words, of kind `text` or `own`; None where no file has words."""
    counts = [(s[f"{kind}_edits"], s[f"{kind}_words"]) for s in scores if s.get(f"{kind}_words") is not None]
    words = sum(count for _, count in counts)
    return sum(count for count, _ in counts) / words if words else None


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
