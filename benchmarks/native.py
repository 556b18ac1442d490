"""What the native kernels save: `python -m benchmarks.native`.

The same live round-trip sessions with them and with torch's operations alone, as without a C++ compiler, in turns of
equal audio, one thread. Figures are shares of one core for one session.
"""

import argparse
from pathlib import Path
from unittest import mock

import torch

from benchmarks.common.surroundings import RESULTS_FOLDER, write_report
from benchmarks.mimi import Ours, measure, shares
from neucodec_streaming import load_codec
from neucodec_streaming.kernels import native

RESULTS = RESULTS_FOLDER / "native.json"
SESSIONS = (1, 2, 4, 8, 16)


def with_torch_alone(model: str, sessions: int) -> Ours:
    with mock.patch.object(native, "_loaded", lambda: None):
        return Ours(load_codec(model), sessions)


def row_of(model: str, sessions: int, turns: int) -> dict[str, float]:
    lives = {"native": Ours(load_codec(model), sessions), "torch": with_torch_alone(model, sessions)}
    steps = measure(dict(lives), sessions, turns)
    both = {name: shares(steps[name], live.step_samples, sessions)["both"] for name, live in lives.items()}
    return {"sessions": sessions, **both, "ratio": both["native"] / both["torch"]}


def main() -> None:
    parser = argparse.ArgumentParser(description="A live roundtrip session with native operations and without.")
    parser.add_argument("--model", default="nano", help="a bundled name, a folder or a hub id")
    parser.add_argument("--sessions", type=int, nargs="+", default=SESSIONS)
    parser.add_argument("--turns", type=int, default=6, help="how often the two take turns")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if native.operations(torch.zeros(1)) is None:
        raise SystemExit("native operations cannot be had here; the line above says why")
    print("sessions   native    torch    ratio   (shares of one core, of one session)")
    rows = []
    for sessions in given.sessions:
        rows.append(row_of(given.model, sessions, given.turns))
        print("{sessions:8d} {native:8.4f} {torch:8.4f} {ratio:8.2f}".format(**rows[-1]), flush=True)
    command = f"python -m benchmarks.native --model {Path(given.model).name}"
    write_report(given.out, {"command": command, "rows": rows})


if __name__ == "__main__":
    main()
