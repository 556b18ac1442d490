"""The gain of starting a stream in a voice: distance from decoding reference and target together, offline.

For each evaluation speaker, up to five seconds of target follow five seconds of reference: other recordings of the
speaker, or the beginning of the only one. A stream starts cold, with the last tokens of the reference, or with those of
another speaker. Distances are between log-mel magnitudes (benchmarks.metrics.nearness), in the first 300 ms and over
the whole; `better` is the share of speakers whose start is nearer than cold. Speakers with less than six seconds are
skipped.

    python -m benchmarks.priming --data FOLDER        # FOLDER/eval/SPEAKER/*.flac
"""

import argparse
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.common.recordings import load, recordings
from benchmarks.common.surroundings import RESULTS_FOLDER, surroundings, write_report
from benchmarks.metrics.nearness import START, log_mel_distances
from neucodec_streaming import load_codec
from neucodec_streaming.codec import Codec

RESULTS = RESULTS_FOLDER / "priming.json"
REFERENCE_TOKENS = 250
TARGET_TOKENS = 250
MIN_TARGET_TOKENS = 50
STARTS = {
    "cold": (False, 0),
    "25 tokens of the voice": (False, 25),
    "50 tokens of the voice": (False, 50),
    "100 tokens of the voice": (False, 100),
    "250 tokens of the voice": (False, 250),
    "100 tokens of another voice": (True, 100),
    "250 tokens of another voice": (True, 250),
}
"""Name -> whether the start is from another speaker, and its number of tokens."""
COLUMNS = ("start", "first_300_ms", "whole", "better")


class SpeakerTokens(NamedTuple):
    """`target` follows `reference` in time."""

    name: str
    reference: np.ndarray
    target: np.ndarray


def speakers(codec: Codec, data: Path) -> list[SpeakerTokens]:
    """Returns the speakers with enough speech."""
    found = []
    for name, files in groupby(recordings(data), key=lambda entry: entry[0]):
        said = [codec.encode(load(path)) for _, path in files]
        before, last = np.concatenate([np.zeros(0, np.uint16), *said[:-1]]), said[-1]
        if len(before) < REFERENCE_TOKENS:
            cut = REFERENCE_TOKENS - len(before)
            before, last = np.concatenate([before, last[:cut]]), last[cut:]
        if len(last) >= MIN_TARGET_TOKENS:
            found.append(SpeakerTokens(name, before[-REFERENCE_TOKENS:], last[:TARGET_TOKENS]))
    return found


def spoken_after(codec: Codec, before: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns the streamed audio of `target` (F,) after `before`, which covers whole chunks: (F * hop_length,).

    Equals a primed stream bit for bit; also works for fewer tokens than a Voice needs.
    """
    decoder = codec.decoder_stream()
    audio = np.concatenate([decoder.feed(np.concatenate([before, target])), decoder.flush()])
    return audio[len(before) * codec.hop_length :]


def distances(codec: Codec, speaker: SpeakerTokens, other: SpeakerTokens) -> dict[str, tuple[float, float]]:
    """Name of a start -> log-mel distance of the first 300 ms and of the whole."""
    together = codec.decode(np.concatenate([speaker.reference, speaker.target]))
    meant = together[len(speaker.reference) * codec.hop_length :]
    found = {}
    for name, (is_other, count) in STARTS.items():
        voice = (other if is_other else speaker).reference
        frames = log_mel_distances(spoken_after(codec, voice[len(voice) - count :], speaker.target), meant)
        found[name] = (float(frames[START].mean()), float(frames.mean()))
    return found


def table(found: list[dict[str, tuple[float, float]]]) -> list[dict[str, object]]:
    """Returns means over speakers."""
    rows = []
    for name in STARTS:
        first, whole = np.mean([one[name] for one in found], axis=0).round(3).tolist()
        better = float(np.mean([one[name][0] < one["cold"][0] for one in found]).round(2))
        rows.append(dict(zip(COLUMNS, (name, first, whole, better), strict=True)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    codec = load_codec(options.model)
    everyone = speakers(codec, options.data)
    found = [distances(codec, one, everyone[place - 1]) for place, one in enumerate(everyone)]
    rows = table(found)
    write_report(options.out, surroundings() | {"model": codec.name, "speakers": len(everyone), "rows": rows})
    print(f"{len(everyone)} speakers")
    for row in rows:
        print(f"{row['start']:30} {row['first_300_ms']:.3f} {row['whole']:.3f} {row['better']:.0%}")


if __name__ == "__main__":
    main()
