"""The quality report: means by speaker, by corpus and over all files, the goals, and spectrograms."""

from pathlib import Path

import numpy as np

from benchmarks.metrics.scores import mean
from benchmarks.metrics.word_errors import error_rate
from benchmarks.quality.damage import DAMAGES
from neucodec_streaming.config import INPUT_RATE

MEANS = (
    *("stoi", "estoi", "pesq", "log_mel", "pitch", "periodicity", "flicker_db", "hum_db"),
    *("dnsmos", "dnsmos_sig", "dnsmos_bak", "distillmos", "speaker", "kbits"),
)
COLUMNS: dict[str, tuple[str, int, int]] = {
    "group": ("of", 30, 0),
    "files": ("files", 5, 0),
    "way": ("way", 13, 0),
    "kbits": ("kbit/s", 6, 2),
    "stoi": ("STOI", 6, 3),
    "estoi": ("ESTOI", 6, 3),
    "pesq": ("PESQ", 6, 2),
    "log_mel": ("log-mel", 7, 2),
    "pitch": ("pitch", 6, 2),
    "periodicity": ("period", 6, 2),
    "dnsmos": ("DNSMOS", 6, 2),
    "dnsmos_sig": ("speech", 6, 2),
    "dnsmos_bak": ("backgr", 6, 2),
    "distillmos": ("Distil", 6, 2),
    "speaker": ("voice", 6, 2),
    "flicker_db": ("50 Hz", 6, 2),
    "hum_db": ("hum", 6, 2),
    "wer_text": ("WER", 6, 3),
    "wer_own": ("to own", 6, 3),
}
"""Heading, width and digits."""
OUR_WAYS = ("original", "offline", "streamed", "streamed low", "streamed high")
RIVAL = "Codec2 1200"
STOI_GOAL, PESQ_GOAL, DNSMOS_LOSS, WER_RATIO = 0.88, 1.7, 0.3, 1.3
PUBLISHED = {"stoi": 0.90, "pesq": 2.04}
"""NeuCodec's own figures on CMU Arctic, which are other recordings than these."""
FFT_SIZE, FFT_HOP = 512, 128
RANGE_DB = 80

QualityRow = dict
"""One way over one group of files: `kind` (speaker, corpus, all), `group`, `files`, `seconds`, `way`, means, rates."""


def rows_of(entries: list[dict]) -> list[QualityRow]:
    """Returns the rows by speaker, then by corpus, then over all files."""
    groups: list[tuple[str, str, list[dict]]] = []
    for kind in ("speaker", "corpus"):
        for name in sorted({entry[kind] for entry in entries}):
            groups.append((kind, name, [entry for entry in entries if entry[kind] == name]))
    groups.append(("all", "all", entries))
    return [row_of(kind, name, group, way) for kind, name, group in groups for way in group[0]["ways"]]


def row_of(kind: str, name: str, entries: list[dict], way: str) -> QualityRow:
    """Leaves out measures that no file has."""
    scores = [entry["ways"][way] for entry in entries]
    seconds = sum(entry["seconds"] for entry in entries)
    found = {measure: mean(scores, measure) for measure in MEANS}
    found |= {f"wer_{reference}": error_rate(scores, reference) for reference in ("text", "own")}
    head = {"kind": kind, "group": name, "files": len(entries), "seconds": seconds, "way": way}
    return head | {measure: value for measure, value in found.items() if value is not None}


def damage_rows(entries: list[dict]) -> list[QualityRow]:
    damaged = [entry["damaged"] for entry in entries if "damaged" in entry]
    names = ("none", *DAMAGES) if damaged else ()
    return [
        {"damage": name, "files": len(damaged)}
        | {measure: mean((scores[name] for scores in damaged), measure) for measure in ("stoi", "pesq")}
        for name in names
    ]


def goals(rows: list[QualityRow]) -> list[dict]:
    """Returns each goal for each of our ways over all files: the measured value, the required one, and whether it is
    met.

    `met` is None if it is unknown: nothing was measured, or the recogniser's error rate on the original is so high that
    a codec with silent output, whose rate is 1, would meet the goal.
    """
    ways = {row["way"]: row for row in rows if row["kind"] == "all"}
    original, rival = ways["original"], ways.get(RIVAL, {})
    checks = []
    for way in (name for name in OUR_WAYS[1:] if name in ways):
        own = ways[way]
        for goal, measure, needed in (
            ("STOI", "stoi", STOI_GOAL),
            ("PESQ", "pesq", PESQ_GOAL),
            (f"STOI of {RIVAL}", "stoi", rival.get("stoi")),
            (f"PESQ of {RIVAL}", "pesq", rival.get("pesq")),
            (f"DNSMOS {DNSMOS_LOSS} below the original's", "dnsmos", _plus(original.get("dnsmos"), -DNSMOS_LOSS)),
            ("NeuCodec's published STOI, on other recordings", "stoi", PUBLISHED["stoi"]),
            ("NeuCodec's published PESQ, on other recordings", "pesq", PUBLISHED["pesq"]),
        ):
            checks.append(_check(way, goal, own.get(measure), needed, +1))
        most = original["wer_text"] * WER_RATIO if "wer_text" in original else None
        goal = f"word error rate at most {WER_RATIO} times the original's"
        check = _check(way, goal, own.get("wer_text"), most, -1)
        checks.append(check if most is None or most < 1 else check | {"met": None})
    return checks


def _plus(value: float | None, more: float) -> float | None:
    return None if value is None else value + more


def _check(way: str, goal: str, measured: float | None, needed: float | None, sign: int) -> dict:
    """`sign` is 1 if more is better, -1 if less is. `margin` is above 0 if the goal is exceeded."""
    margin = None if measured is None or needed is None else sign * (measured - needed)
    met = None if margin is None else margin >= 0
    return {"way": way, "goal": goal, "measured": measured, "needed": needed, "margin": margin, "met": met}


def print_report(rows: list[QualityRow], usage: dict[str, dict], damages: list[QualityRow], checks: list[dict]) -> None:
    """The table shows only our own ways for speakers."""
    print(
        "\nMeans over files; 50 Hz: modulation at the frame rate in voiced speech, in dB over the original's; Distil:"
        " DistilMOS; voice: likeness of the speaker; WER: word errors against true texts, to own: against what is"
        " recognised in the original."
    )
    print(" ".join(f"{title:>{width}}" for title, width, _ in COLUMNS.values()).rstrip())
    for row in rows:
        if row["kind"] != "speaker" or row["way"] in OUR_WAYS:
            print(" ".join(_cell(row.get(name), *COLUMNS[name][1:]) for name in COLUMNS).rstrip())
    print("\nCode usage")
    for way, one in usage.items():
        levels = " ".join(f"{bits:.2f}" for bits in one["level_entropy_bits"])
        print(
            f"  {way:9} {one['tokens']} tokens, entropy {one['entropy_bits']:.2f} bits (at most"
            f" {one['entropy_bits_at_most']:.2f} for this number), {one['share_seen']:.1%} of 65,536 seen; bits of the"
            f" levels {levels}"
        )
    if damages:
        print(f"\nDamaged tokens, streamed, {damages[0]['files']} files")
    for row in damages:
        print(f"  {row['damage']:22} STOI {_cell(row['stoi'], 6, 3)}  PESQ {_cell(row['pesq'], 5, 2)}")
    print("\nGoals, over all files")
    for check in checks:
        print(f"  {_verdict(check)} {check['way']:9} {check['goal']}: {_figures(check)}")


def _cell(value: float | str | None, width: int, digits: int) -> str:
    if value is None:
        return "-".rjust(width)
    return f"{value:{width}.{digits}f}" if isinstance(value, float) else f"{value:>{width}}"


def _verdict(check: dict) -> str:
    return {True: "met    ", False: "MISSED ", None: "unknown"}[check["met"]]


def _figures(check: dict) -> str:
    if check["margin"] is None:
        return "not measured"
    figures = f"{check['measured']:.3f}, needed {check['needed']:.3f}, {check['margin']:+.3f}"
    return figures if check["met"] is not None else f"{figures}, which silence would meet: the recogniser is too weak"


def draw(sounds: list[tuple[str, dict[str, np.ndarray]]], path: Path) -> None:
    """Draws spectrograms up to 8 kHz: a row per recording (title, and audio at 16 kHz per way), a column per way."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    columns = list(sounds[0][1])
    figure, axes = pyplot.subplots(
        len(sounds), len(columns), figsize=(4 * len(columns), 2.4 * len(sounds)), sharey=True, squeeze=False
    )
    for line, (title, audios) in zip(axes, sounds, strict=True):
        loudest = 20 * np.log10(spectrogram(audios[columns[0]]).max() + 1e-9)
        for place, way in zip(line, columns, strict=True):
            levels = 20 * np.log10(spectrogram(audios[way]) + 1e-9)
            extent = (0, len(audios[way]) / INPUT_RATE, 0, INPUT_RATE / 2000)
            place.imshow(
                levels.T,
                origin="lower",
                aspect="auto",
                extent=extent,
                vmin=loudest - RANGE_DB,
                vmax=loudest,
                cmap="magma",
            )
            place.set_title(way if place is not line[0] else f"{way}: {title}", fontsize=9)
            place.set_xlabel("s")
        line[0].set_ylabel("kHz")
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def spectrogram(audio: np.ndarray) -> np.ndarray:
    """(T,) -> magnitudes (F, 257)."""
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(audio, FFT_SIZE // 2), FFT_SIZE)[::FFT_HOP]
    return np.abs(np.fft.rfft(frames * np.hanning(FFT_SIZE)))
