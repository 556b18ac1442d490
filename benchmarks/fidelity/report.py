"""The fidelity report: its tables, the check list of its targets, the recommended point, and its plot."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

DECODE_LIMIT_MS = 200.0
ENCODE_LIMIT_MS = 215.0
STOI_LOSS = 0.005
PESQ_LOSS = 0.03
WITHIN_1 = 0.95
WITHIN_1_GOAL = 0.99
SEAM_DEVIATION = 0.05
BETTER = {"levels_equal": 1, "log_mel": -1, "snr_db": 1, "stoi": 1, "pesq": 1}
"""Measures in which a stream should beat the window of its latency; 1 if higher is better, -1 if lower is."""
COLUMNS: dict[str, tuple[str, int]] = {
    "way": ("way", 8),
    "chunk_frames": ("chunk", 5),
    "lookahead_frames": ("ahead", 5),
    "context_frames": ("context", 7),
    "prior_weight": ("prior", 5),
    "set": ("set", 9),
    "part": ("part", 12),
    "encode_ms": ("enc ms", 6),
    "decode_ms": ("dec ms", 6),
    "roundtrip_ms": ("both", 5),
    "levels_equal": ("levels", 6),
    "levels_within_1": ("within 1", 8),
    "tokens_equal": ("tokens", 6),
    "log_mel": ("log-mel", 7),
    "snr_db": ("SNR dB", 6),
    "seam": ("seam", 6),
    "seam_error": ("+-", 6),
    "stoi": ("STOI", 6),
    "stoi_loss": ("loss", 7),
    "pesq": ("PESQ", 6),
    "pesq_loss": ("loss", 7),
    "decoded_stoi": ("dec STOI", 8),
    "decoded_pesq": ("dec PESQ", 8),
    "encode_cost": ("enc s/s", 7),
    "decode_cost": ("dec s/s", 7),
}
"""Heading and width."""
PANELS = (
    ("log_mel", "decode_ms", "Decoder: log-mel distance to offline decoding (lower is better)"),
    ("stoi", "roundtrip_ms", "Encoder and decoder: STOI (higher is better)"),
    ("levels_equal", "encode_ms", "Encoder: levels as in offline encoding (higher is better)"),
)
"""Measure, latency and title."""
WAYS = (
    ("streamed", "stream", "tab:blue", "o"),
    ("sliding", "sliding window", "tab:orange", "s"),
    ("NeuTTS", "NeuTTS's window", "tab:green", "D"),
)
"""Name, label, colour and marker."""
POINT = ("way", "chunk_frames", "lookahead_frames", "context_frames", "prior_weight")
NEAR = ("levels_equal", "levels_within_1", "tokens_equal", "log_mel", "snr_db")
SCORES = ("seam", "seam_error", "stoi", "stoi_loss", "pesq", "pesq_loss", "decoded_stoi", "decoded_pesq")

FidelityRow = dict
"""One way at one point, over one part of one set of recordings."""


def print_report(
    rows: list[FidelityRow], ablations: list[FidelityRow], checks: list[dict], default: FidelityRow
) -> None:
    whole = [row for row in rows if row["part"] == "whole" and row["set"] == "speech"]
    print("\nSpeech, every point. Loss is against the offline model; dec is the decoder alone, on the offline tokens.")
    times = ("encode_ms", "decode_ms", "roundtrip_ms")
    _print_table(whole, (*POINT, *times, *NEAR, *SCORES, "encode_cost", "decode_cost"))
    print("\nThe default point: parts of the stream, and hard cases.")
    here = [row for row in rows if _is_at(row, default) or row["way"] == "NeuTTS"]
    _print_table(here, ("set", "part", "way", *NEAR, *SCORES))
    for kind, heading in (("encode", "Encoder"), ("decode", "Decoder")):
        chosen = [row for row in ablations if row["kind"] == kind]
        if chosen:
            _print_ablations(heading, chosen)
    print("\nTargets at the default point")
    for check in checks:
        print(f"  {'met   ' if check['met'] else 'MISSED'} {check['target']}: {check['measured']}")
    print(f"\n{recommendation(whole)}")


def _print_table(rows: list[FidelityRow], columns: tuple[str, ...]) -> None:
    print(" ".join(f"{COLUMNS[name][0]:>{COLUMNS[name][1]}}" for name in columns))
    for row in rows:
        print(" ".join(f"{_cell(row.get(name)):>{COLUMNS[name][1]}}" for name in columns))


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 40 or value == int(value) else f"{value:.4f}"[: 6 if abs(value) >= 10 else 7]


def _print_ablations(heading: str, rows: list[FidelityRow]) -> None:
    print(f"\n{heading}: one approximation at a time (levels, log-mel, SNR: whole, then first 300 ms)")
    print(f"{'':38}  levels  log-mel  SNR dB |  levels  log-mel  SNR dB |    STOI    seam")
    for row in rows:
        cells = " | ".join(
            f"{row[f'{part}levels_equal']:7.3f} {row[f'{part}log_mel']:8.3f} {row[f'{part}snr_db']:7.2f}"
            for part in ("", "first_")
        )
        print(f"{row['name']:38} {cells} | {row['stoi']:7.4f} {_cell(row.get('seam')):>7}")


def _is_at(row: FidelityRow, default: FidelityRow) -> bool:
    """Whether the row is a stream at this point, or a window of its chunk and lookahead."""
    same = (row["chunk_frames"], row["lookahead_frames"]) == (default["chunk_frames"], default["lookahead_frames"])
    return same and _remembers_as(row, default)


def _remembers_as(row: FidelityRow, default: FidelityRow) -> bool:
    """Whether context and priors are those of this point; a window has neither."""
    own = row["context_frames"], row["prior_weight"]
    return own in ((None, None), (default["context_frames"], default["prior_weight"]))


def check_list(rows: list[FidelityRow], default: FidelityRow) -> list[dict]:
    whole = [row for row in rows if row["part"] == "whole" and row["set"] == "speech"]
    here = next(row for row in whole if row["way"] == "streamed" and _is_at(row, default))
    neutts = next(row for row in whole if row["way"] == "NeuTTS")
    checks = [
        _check(f"decode latency at most {DECODE_LIMIT_MS:.0f} ms", here["decode_ms"], lambda x: x <= DECODE_LIMIT_MS),
        _check(f"encode latency at most {ENCODE_LIMIT_MS:.0f} ms", here["encode_ms"], lambda x: x <= ENCODE_LIMIT_MS),
        _check(
            f"round trip loses at most {STOI_LOSS} STOI",
            here["stoi_loss"],
            lambda x: x <= STOI_LOSS,
            here["stoi_loss_error"],
        ),
        _check(
            f"round trip loses at most {PESQ_LOSS} PESQ",
            here["pesq_loss"],
            lambda x: x <= PESQ_LOSS,
            here["pesq_loss_error"],
        ),
        _check(f"levels within 1 in {WITHIN_1:.0%}", here["levels_within_1"], lambda x: x >= WITHIN_1),
        _check(
            f"levels within 1 in {WITHIN_1_GOAL:.0%}, the goal", here["levels_within_1"], lambda x: x >= WITHIN_1_GOAL
        ),
        _check("seam within 5 % of non-seam", here["seam"], lambda x: abs(x - 1) <= SEAM_DEVIATION, here["seam_error"]),
    ]
    for measure, loss in (("stoi", STOI_LOSS), ("pesq", PESQ_LOSS)):
        behind = neutts[f"decoded_{measure}"] - here[f"decoded_{measure}"]
        name = f"decoder alone behind NeuTTS's geometry by at most {loss} {measure.upper()}"
        checks.append(_check(name, behind, lambda x, loss=loss: x <= loss))
    return checks + _against_windows(rows, default)


def _check(target: str, measured: float, meets: Callable[[float], bool], error: float | None = None) -> dict:
    """`error` is the standard error of the measured value, only for display."""
    text = f"{measured:.4f}" + ("" if error is None else f" +- {error:.4f}")
    return {"target": target, "measured": text, "met": bool(meets(measured))}


def _against_windows(rows: list[FidelityRow], default: FidelityRow) -> list[dict]:
    """Counts, for each measure, the rows on which the default stream beats its window, and lists the others."""
    here = [row for row in rows if _is_at(row, default)]
    windows = {(row["set"], row["part"]): row for row in here if row["way"] == "sliding"}
    pairs = [(row, windows[row["set"], row["part"]]) for row in here if row["way"] == "streamed"]
    checks = []
    for measure, up in BETTER.items():
        rated = [(row, window) for row, window in pairs if None not in (row.get(measure), window.get(measure))]
        worse = [f"{row['set']} {row['part']}" for row, window in rated if up * row[measure] < up * window[measure]]
        measured = f"{len(rated) - len(worse)} of {len(rated)}" + (f", not on {'; '.join(worse)}" if worse else "")
        target = f"{measure} better than the window's on every row"
        checks.append({"target": target, "measured": measured, "met": not worse})
    return checks


def recommendation(whole: list[FidelityRow]) -> str:
    """Recommends, of the points within the latency limits that keep STOI, PESQ, levels and seam, the cheapest one."""
    points = [
        row
        for row in whole
        if row["way"] == "streamed" and row["decode_ms"] <= DECODE_LIMIT_MS and row["encode_ms"] <= ENCODE_LIMIT_MS
    ]
    keeping = [
        row
        for row in points
        if row["stoi_loss"] <= STOI_LOSS
        and row["pesq_loss"] <= PESQ_LOSS
        and row["levels_within_1"] >= WITHIN_1_GOAL
        and row["seam"] is not None
        and abs(row["seam"] - 1) <= SEAM_DEVIATION
    ]
    computed = {id(row): (row["chunk_frames"] + row["lookahead_frames"]) / row["chunk_frames"] for row in points}
    best = min(keeping or points, key=lambda row: (computed[id(row)] if keeping else 0, row["log_mel"]))
    reason = (
        "meets the targets of STOI, PESQ, levels and seam and computes the fewest frames"
        if keeping
        else "meets no more targets than others, but is nearest to offline decoding"
    )
    return (
        f"Recommended within {DECODE_LIMIT_MS:.0f} and {ENCODE_LIMIT_MS:.0f} ms: chunk {best['chunk_frames']},"
        f" lookahead {best['lookahead_frames']}, context {best['context_frames']}, prior {best['prior_weight']}:"
        f" it {reason} ({computed[id(best)]:.2f} frames computed for each that is kept)."
    )


def draw(rows: list[FidelityRow], default: FidelityRow, path: Path) -> None:
    from matplotlib.figure import Figure

    whole = [row for row in rows if row["part"] == "whole" and row["set"] == "speech"]
    here = next(row for row in whole if row["way"] == "streamed" and _is_at(row, default))
    same = [row for row in whole if _remembers_as(row, default)]
    figure = Figure(figsize=(16, 5.6), layout="constrained")
    for axes, (measure, latency, title) in zip(figure.subplots(1, 3), PANELS, strict=True):
        for way, label, colour, marker in WAYS:
            chosen = [row for row in same if row["way"] == way and None not in (row.get(latency), row.get(measure))]
            if not chosen:
                continue
            axes.plot([r[latency] for r in chosen], [r[measure] for r in chosen], marker, color=colour, label=label)
            line = sorted((r[latency], r[measure]) for r in chosen if r["chunk_frames"] == default["chunk_frames"])
            axes.plot([x for x, _ in line], [y for _, y in line], "-", color=colour, alpha=0.4)
            _annotate(axes, chosen, measure, latency, default, colour)
        axes.plot(here[latency], here[measure], "o", ms=16, mfc="none", mec="black", label="default, as a stream")
        if measure == "stoi":
            axes.axhline(here["stoi"] + here["stoi_loss"], color="grey", ls="--", label="offline model")
        axes.set(title=title, xlabel="algorithmic latency (ms)")
        axes.margins(0.1)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9, loc="upper right" if measure == "log_mel" else "lower right")
    name = f"context {default['context_frames']}, prior {default['prior_weight']:g}"
    figure.suptitle(f"Chunk + lookahead in frames of 20 ms ({name}); lines join chunks of {default['chunk_frames']}")
    figure.savefig(path, dpi=110)


def _annotate(
    axes: Any, rows: list[FidelityRow], measure: str, latency: str, default: FidelityRow, colour: str
) -> None:
    """Labels each point with chunk and lookahead: on the right if the chunk is the default's, else on the left."""
    labels = defaultdict(list)
    for row in rows:
        on_the_right = row["chunk_frames"] == default["chunk_frames"]
        text = f"{row['chunk_frames']}+{row['lookahead_frames']}" if row["chunk_frames"] else row["way"]
        labels[row[latency], row[measure], on_the_right].append(text)
    for (x, y, on_the_right), texts in labels.items():
        axes.annotate(
            ", ".join(texts),
            (x, y),
            (9 if on_the_right else -9, 0),
            textcoords="offset points",
            ha="left" if on_the_right else "right",
            va="center",
            fontsize=8,
            color=colour,
        )
