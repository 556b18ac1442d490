"""The loss of fidelity by streaming: `python -m benchmarks.fidelity --model nano --data ../shared/speech`.

Over a grid of chunk, lookahead, context and prior weight, codes recordings as streams and compares them with the
offline model, next to the sliding window of the same latency and NeuTTS's geometry (sliding_window.py). At the model's
default, also codes hard cases (benchmarks.common.recordings). `--ablations` changes one approximation at a time
(ablations.py). Prints tables and a check list of the targets; writes JSON and a plot.
"""

import argparse
import json
import os
import time
from functools import partial
from pathlib import Path

import torch

from benchmarks.common.processes import spread
from benchmarks.common.recordings import recordings, thinned
from benchmarks.common.surroundings import RESULTS_FOLDER, surroundings
from benchmarks.fidelity.ablations import ABLATIONS
from benchmarks.fidelity.contenders import Streamed
from benchmarks.fidelity.references import reference_sets
from benchmarks.fidelity.report import check_list, draw, print_report
from benchmarks.fidelity.tasks import ablation_row, grid, order, point_of, rows_of, tasks_of
from neucodec_streaming import load_codec

ABLATION_FILES = 16


def main() -> None:
    parser = argparse.ArgumentParser(description="Fidelity of streams against the offline model, with the baseline.")
    parser.add_argument("--model", default="nano", help="a bundled name, a folder or a hub id")
    parser.add_argument("--data", type=Path, default=Path("../shared/speech"), help="folder that contains eval/")
    parser.add_argument("--files", type=int, default=32, help="at most N recordings, evenly over the speakers; 0: all")
    parser.add_argument(
        "--grid",
        choices=("default", "small", "full"),
        default="small",
        help="the default point; from it along each axis; or every combination",
    )
    parser.add_argument("--ablations", action="store_true", help="also undo each approximation by itself")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="number of processes of one thread")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/fidelity-MODEL.json, with a plot")
    arguments = parser.parse_args()
    started = time.monotonic()
    torch.set_num_threads(1)
    codec = load_codec(arguments.model)
    pooled_from = reference_sets(codec, recordings(arguments.data), arguments.files)
    tasks = tasks_of(codec, grid(arguments.grid, codec.default_config), pooled_from)
    rows = [row for rows in spread(rows_of, tasks, arguments.processes) for row in rows]
    ablations = []
    if arguments.ablations:
        call = partial(ablation_row, model=arguments.model, references=thinned(pooled_from["speech"], ABLATION_FILES))
        ablations = spread(call, [(a.name, a.kind) for a in ABLATIONS], arguments.processes)
    rows.sort(key=order)
    default = point_of(Streamed(codec, codec.default_config))
    checks = check_list(rows, default)
    print_report(rows, ablations, checks, default)
    result = surroundings() | {
        "command": f"python -m benchmarks.fidelity --model {arguments.model} --files {arguments.files}"
        f" --grid {arguments.grid}{' --ablations' * arguments.ablations}",
        "seconds": round(time.monotonic() - started, 1),
        "default": default,
        "checks": checks,
        "rows": rows,
        "ablations": ablations,
    }
    out = arguments.out or RESULTS_FOLDER / f"fidelity-{Path(arguments.model).name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    draw(rows, default, out.with_suffix(".png"))
    print(f"written to {out} and {out.with_suffix('.png')}")


if __name__ == "__main__":
    main()
