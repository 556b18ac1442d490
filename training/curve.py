"""The benefit of more training audio: `python -m training.curve --log training/results/log-2.jsonl --heard-before 44`.

Plots validation STOI and PESQ against the hours of audio trained on, including earlier runs, and fits each by a line
over the logarithm of the hours. The learning rate falls within a run, which raises its last points: the fit is a guide,
not a bound.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from training.train import Schedule

MEASURES = ("stoi", "pesq")


def points(log: Path, heard_before: float) -> dict[str, np.ndarray]:
    """Returns arrays (N,), one value for every validation of a log."""
    entries = [entry for entry in map(json.loads, log.read_text().splitlines()) if "stoi" in entry]
    hours_a_step = Schedule.frames_per_batch / 50 / 3600
    found = {name: np.array([entry[name] for entry in entries]) for name in MEASURES}
    return {"hours": heard_before + hours_a_step * np.array([entry["step"] for entry in entries])} | found


def fitted(hours: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Returns the value at one hour, and the gain for ten times the hours, of the best-fitting line."""
    gain, start = np.polyfit(np.log10(hours), values, 1)
    return float(start), float(gain)


def main() -> None:
    parser = argparse.ArgumentParser(description="Validation against the hours trained on, with a forecast.")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--heard-before", type=float, default=0.0, help="hours of earlier runs")
    parser.add_argument("--out", type=Path, help="picture; default: curve.png next to the log")
    arguments = parser.parse_args()
    found = points(arguments.log, arguments.heard_before)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(MEASURES)).flat, MEASURES, strict=True):
        start, gain = fitted(found["hours"], found[name])
        last = found["hours"][-1]
        print(f"{name}: {found[name][-1]:.4f} after {last:.1f} h; ten times the hours: {gain:+.4f}")
        ahead = np.geomspace(found["hours"][0], 10 * last)
        axes.semilogx(found["hours"], found[name], "o", ahead, start + gain * np.log10(ahead), "--")
        axes.set_title(name)
        axes.set_xlabel("hours of audio trained on")
    figure.savefig(arguments.out or arguments.log.with_name("curve.png"), dpi=80)


if __name__ == "__main__":
    main()
