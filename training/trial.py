"""A trial of a change to the recipe: `python -m training.trial NAME --work FOLDER --change coherence=1.0`.

Starts from a checkpoint, trains for some steps with changed fields of `Schedule`, `LossWeights` or `Augmentation` and
the rate annealed to the end, and validates during the run. Step n draws the same batch in every trial with the same
seed; a trial without a change is the control. Writes `training/results/trials/NAME.json`.
"""

import argparse
import json
import time
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from training.augment import Augmentation, augmented
from training.data import Speech
from training.losses import LossWeights
from training.train import Schedule, Trainer
from training.validate import validate

RESULTS = Path(__file__).parent / "results" / "trials"


def changed(start: Any, changes: dict[str, float]) -> Any:
    """Returns `start`, a dataclass, with the changes that name a field of it."""
    return replace(start, **{f.name: type(f.default)(changes[f.name]) for f in fields(start) if f.name in changes})


def main() -> None:
    parser = argparse.ArgumentParser(description="Try a change of the recipe from a checkpoint.")
    parser.add_argument("name")
    parser.add_argument("--work", type=Path, required=True, help="folder of a run, which is only read")
    parser.add_argument("--start", type=Path, help="model folder, or checkpoint (default: that of the work folder)")
    parser.add_argument("--change", nargs="*", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--validate-every", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    changes = {name: float(value) for name, value in (change.split("=") for change in arguments.change)}
    known = {f.name for kind in (Schedule, LossWeights, Augmentation) for f in fields(kind)}
    if unknown := changes.keys() - known:
        parser.error(f"unknown fields in --change: {sorted(unknown)}; the fields are {sorted(known)}")
    torch.set_num_threads(1)
    base = replace(Schedule(), adversarial_from=0, coherence_push=(), peak_rate=4e-4, warmup_steps=50, average=0.99)
    trainer = Trainer(
        arguments.work, changed(base, changes), changed(LossWeights(), changes), arguments.seed, mixed=True
    )
    trainer.change = partial(augmented, how=changed(Augmentation(), changes))
    trainer.start_from(arguments.start or arguments.work / "checkpoint.pt")
    held_out = Speech(arguments.work, held_out=True)
    points, seconds = [{"step": 0} | validate(trainer.average, held_out)], 0.0
    while trainer.step < arguments.steps:
        started = time.process_time()
        trainer.advance(trainer.step / arguments.steps)
        seconds += time.process_time() - started
        if trainer.step % arguments.validate_every == 0 or trainer.step == arguments.steps:
            point = {"step": trainer.step, "core_seconds": round(seconds, 1)} | validate(trainer.average, held_out)
            points.append(point)
            print(point, flush=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    result = {"name": arguments.name, "changes": changes, "validation": points}
    (RESULTS / f"{arguments.name}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
