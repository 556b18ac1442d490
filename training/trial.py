"""Whether a change of the recipe pays: `python -m training.trial NAME --work FOLDER --change coherence=1.0`.

Goes on from a copy of the work folder's checkpoint for some steps at that checkpoint's learning rate, with fields of
`Schedule`, `LossWeights` or `Augmentation` changed, and validates on the way. Step n draws the same batch as the run
does, so that a trial without a change is the control. Writes `training/results/trials/NAME.json`.
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
from training.windows import read_priors

RESULTS = Path(__file__).parent / "results" / "trials"


def changed(start: Any, changes: dict[str, float]) -> Any:
    """`start`, a dataclass, with those of the changes that name a field of it."""
    return replace(start, **{f.name: type(f.default)(changes[f.name]) for f in fields(start) if f.name in changes})


def main() -> None:
    parser = argparse.ArgumentParser(description="Try a change of the recipe from a checkpoint.")
    parser.add_argument("name")
    parser.add_argument("--work", type=Path, required=True, help="folder of a run; only read")
    parser.add_argument("--checkpoint", type=Path, help="default: that of the work folder")
    parser.add_argument("--priors", type=Path, default=Path("streaming/assets/nano/stream.json"))
    parser.add_argument("--change", nargs="*", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--validate-every", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    changes = {name: float(value) for name, value in (change.split("=") for change in arguments.change)}
    known = {f.name for kind in (Schedule, LossWeights, Augmentation) for f in fields(kind)}
    if unknown := changes.keys() - known:
        parser.error(f"--change names {sorted(unknown)}; the fields are {sorted(known)}")
    torch.set_num_threads(1)
    base = replace(Schedule(), adversarial_from=0, coherence_push=(), peak_rate=4e-4)
    trainer = Trainer(
        arguments.work, changed(base, changes), changed(LossWeights(), changes), arguments.seed, mixed=True
    )
    trainer.change = partial(augmented, how=changed(Augmentation(), changes))
    trainer.priors = read_priors(arguments.priors)
    progress = trainer.restore(arguments.checkpoint)
    held_out, first = Speech(arguments.work, held_out=True), trainer.step
    points = [{"step": first} | validate(trainer.average, held_out)]
    started = time.process_time()
    while trainer.step < first + arguments.steps:
        trainer.advance(progress)
        if (trainer.step - first) % arguments.validate_every == 0:
            points.append({"step": trainer.step} | validate(trainer.average, held_out))
            print(points[-1], flush=True)
    seconds = time.process_time() - started
    RESULTS.mkdir(parents=True, exist_ok=True)
    result = {"name": arguments.name, "changes": changes, "core_seconds": round(seconds, 1), "validation": points}
    (RESULTS / f"{arguments.name}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
