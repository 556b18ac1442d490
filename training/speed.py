"""Audio trained on per second of a core, compared between checkouts: `python -m training.speed --work FOLDER OLD NEW`.

Each checkout of this repository trains some steps in its own process, from its own `nano` and with judges, in
alternating rounds. The first steps of a process, which compile and warm up, do not count.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median

# Runs in the other checkout: its calls differ between versions.
_CODE = """
import inspect, sys, time, torch
from dataclasses import replace
from pathlib import Path
from training import antialias, train
torch.set_num_threads(1)
if hasattr(antialias, "compile_elementwise"):
    antialias.compile_elementwise()
schedule = replace(train.Schedule(), adversarial_from=0, coherence_push=())
mixed = {"mixed": True} if "mixed" in inspect.signature(train.Trainer).parameters else {}
trainer = train.Trainer(Path(sys.argv[1]), schedule, train.LossWeights(), 0, **mixed)
trainer.start_from(Path("streaming/assets/nano"))
progress = (0.0,) if "progress" in inspect.signature(trainer.advance).parameters else ()
for step in range(int(sys.argv[2]) + int(sys.argv[3])):
    if step == int(sys.argv[2]):
        started = time.process_time()
    trainer.advance(*progress)
seconds = time.process_time() - started
print(int(sys.argv[3]) * schedule.frames_per_batch / 50 / seconds)
"""


def learned(checkout: Path, work: Path, warm_up: int, steps: int) -> float:
    """Returns seconds of audio per second of a core."""
    command = [sys.executable, "-c", _CODE, str(work.absolute()), str(warm_up), str(steps)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare how fast checkouts learn.")
    parser.add_argument("checkouts", type=Path, nargs="+")
    parser.add_argument("--work", type=Path, required=True, help="folder with prepared speech")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=15)
    parser.add_argument("--steps", type=int, default=30)
    arguments = parser.parse_args()
    rates: dict[str, list[float]] = {str(checkout): [] for checkout in arguments.checkouts}
    for _ in range(arguments.rounds):
        for checkout in arguments.checkouts:
            rates[str(checkout)].append(learned(checkout, arguments.work, arguments.warm_up, arguments.steps))
    first = median(rates[str(arguments.checkouts[0])])
    for name, values in rates.items():
        figures = {"each": [round(v, 2) for v in values], "median": round(median(values), 2)}
        print(json.dumps({"checkout": name, **figures, "times_the_first": round(median(values) / first, 2)}))


if __name__ == "__main__":
    main()
