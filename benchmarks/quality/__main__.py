"""The sound quality of a model: `python -m benchmarks.quality --model nano --data ../shared/speech`.

Codes each evaluation recording as a whole (offline, by the model itself), as a live stream in each server profile, and
with Opus and Codec2 if their commands are installed. All measures are at 16 kHz:

    STOI, ESTOI, PESQ wide band, log-mel distance up to 8 kHz    against the original (benchmarks.metrics.scores)
    voiced frames whose pitch is within a semitone, periodicity  against the original (benchmarks.metrics.pitch)
    DNSMOS P.835: overall, speech, background                    of output and original alone (metrics.dnsmos)
    word errors against the true text, and the original's        only for files in --texts (metrics.word_errors)
    word errors against the transcript of the original           by Whisper base, in any language

Words, DistilMOS and speaker similarity take long: they are measured on every sixth recording (--listen-every). All
networks rate Opus and Codec2 only with --listen-to-others. Also reports codebook usage (metrics.code_usage), and STOI
and PESQ of streams with damaged or lost tokens (damage.py) over a subset. Means are over files, word error rates over
words.
"""

import argparse
import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.common.processes import spread
from benchmarks.common.recordings import corpora, load, recordings, thinned
from benchmarks.common.surroundings import RESULTS_FOLDER, surroundings
from benchmarks.metrics.code_usage import code_usage
from benchmarks.metrics.word_errors import read_texts
from benchmarks.quality.evaluation import EvaluationRecording, EvaluationSettings, evaluated, heard, open_ears
from benchmarks.quality.other_codecs import OtherCodec, available_codecs
from benchmarks.quality.report import damage_rows, draw, goals, print_report, rows_of
from neucodec_streaming import load_codec
from neucodec_streaming.server.settings.fields import PROFILES

CALIBRATION_FILES = 12
"""Recordings for measuring another codec's delay."""
PICTURED_FILES = 3
PICTURED_MODES = ("", "1200")
"""Opus, and the Codec2 mode with the next higher rate than ours."""
DIGITS = 4


def recordings_of(
    data: Path, texts: Path, limit: int, listen_every: int, damage_every: int
) -> list[EvaluationRecording]:
    """Rates every n-th recording by its words too, or damages it; text and corpus are set if known."""
    files, known, names = thinned(recordings(data), limit), read_texts(texts), corpora(data)
    return [
        EvaluationRecording(
            speaker,
            names.get(path, "unknown"),
            path,
            known.get(path.name),
            is_heard=not at % listen_every,
            is_damaged=bool(damage_every) and not at % damage_every,
        )
        for at, (speaker, path) in enumerate(files)
    ]


def calibrated_codecs(found: list[EvaluationRecording]) -> list[OtherCodec]:
    """Prints the reason for each codec left out."""
    codecs, reasons = available_codecs()
    for reason in reasons:
        print(f"left out: {reason}")
    pcms = [load(recording.path) for recording in thinned(found, CALIBRATION_FILES)]
    return [codec.calibrated(pcms) for codec in codecs]


def write(out: Path, result: dict, entries: list[dict]) -> None:
    """The JSON has one line per file."""
    head = json.dumps(rounded(result), indent=1).removesuffix("\n}")
    lines = ",\n".join(f"  {json.dumps(rounded(entry))}" for entry in entries)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(f'{head},\n "files": [\n{lines}\n ]\n}}\n')


def rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return round(value, DIGITS) if isinstance(value, float) else value


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Sound quality of a model, offline and streamed, next to Opus and Codec2."
    )
    parser.add_argument("--model", default="nano", help="a bundled name, a folder or a hub id")
    parser.add_argument("--data", type=Path, default=Path("../shared/speech"), help="folder that contains eval/")
    parser.add_argument("--texts", type=Path, help="lines of FILE TAB TEXT; default: eval/texts.tsv in that folder")
    parser.add_argument("--limit", type=int, default=0, help="at most N files, evenly over the set")
    parser.add_argument(
        "--profiles", nargs="*", default=list(PROFILES), choices=list(PROFILES), help="profiles to stream in"
    )
    parser.add_argument("--no-listening", action="store_true", help="skip DNSMOS, DistilMOS, voices and words")
    parser.add_argument("--listen-every", type=int, default=6, help="rate words, voice and DistilMOS of every Nth file")
    parser.add_argument("--no-others", action="store_true", help="skip Opus and Codec2")
    parser.add_argument("--listen-to-others", action="store_true", help="rate Opus and Codec2 by DNSMOS and words too")
    parser.add_argument("--damage-every", type=int, default=6, help="damage the tokens of every Nth file; 0: none")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/quality-MODEL.json, with a picture")
    return parser.parse_args()


def main() -> None:
    arguments = parsed()
    started = time.monotonic()
    torch.set_num_threads(1)
    texts = arguments.texts or arguments.data / "eval" / "texts.tsv"
    found = recordings_of(arguments.data, texts, arguments.limit, arguments.listen_every, arguments.damage_every)
    print(f"{len(found)} files, true texts of {sum(recording.text is not None for recording in found)}")
    others = [] if arguments.no_others else calibrated_codecs(found)
    for reason in [] if arguments.no_listening else open_ears()[1]:
        print(f"left out: {reason}")
    settings = EvaluationSettings(
        arguments.model,
        tuple(others),
        profiles=tuple(arguments.profiles),
        listens=not arguments.no_listening,
        listens_to_others=arguments.listen_to_others,
    )
    measured = spread(partial(evaluated, settings), found, arguments.workers)
    entries = [one.entry for one in measured]
    usage = {way: code_usage(np.concatenate([one.tokens[way] for one in measured])) for way in measured[0].tokens}
    rows, damages = rows_of(entries), damage_rows(entries)
    checks = goals(rows)
    print_report(rows, usage, damages, checks)
    config = load_codec(arguments.model).default_config
    result = surroundings() | {
        "command": f"python -m benchmarks.quality --model {arguments.model}",
        "chunk_frames": config.chunk_frames,
        "lookahead_frames": config.lookahead_frames,
        "seconds": round(time.monotonic() - started, 1),
        "files_with_text": sum(recording.text is not None for recording in found),
        "delays_ms": {codec.name: codec.delay_ms for codec in others},
        "code_usage": usage,
        "goals": checks,
        "damage": damages,
        "rows": rows,
    }
    out = arguments.out or RESULTS_FOLDER / f"quality-{Path(arguments.model).name}.json"
    write(out, result, entries)
    pictured = replace(settings, others=tuple(codec for codec in others if codec.mode in PICTURED_MODES))
    draw([(one.speaker, heard(pictured, one)) for one in thinned(found, PICTURED_FILES)], out.with_suffix(".png"))
    print(f"written to {out} and {out.with_suffix('.png')} after {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
