"""Trains `nano`: `python -m training.train --data FOLDER --work FOLDER --seed 0`.

Prepares the data where that is missing, trains, logs to `log.jsonl` and `curves.png`, keeps `checkpoint.pt` in the work
folder and goes on from it when started again. First the loss is reconstruction alone; then judges learn beside the
model, and it learns to convince them too. Step n draws its batch from (seed, n), so a run that was interrupted sees the
same crops as one that was not. What is exported later is the moving average of the weights.
"""

import argparse
import json
import math
import time
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import NeuCodecModel

from training import antialias
from training.data import HOP_IN, HOP_OUT, Batch, Speech, prepare
from training.discriminators import Judges, adversarial_loss, below_bandwidth, feature_loss, judging_loss
from training.losses import LossWeights, losses, total
from training.model import new_model, reconstruct
from training.validate import plot, validate

LENGTHS_FRAMES = (15, 30, 60, 100, 150, 200)
LENGTH_SHARES = (0.05, 0.10, 0.15, 0.25, 0.25, 0.20)
JUDGED_FLOOR = 1e-3
LOG_EVERY = 25
CHECKPOINT_EVERY = 250


@dataclass(frozen=True)
class Schedule:
    """Lengths of the run in steps, and what the optimiser does on the way."""

    steps: int = 20_000
    adversarial_from: int = 12_000
    warmup_steps: int = 300
    frames_per_batch: int = 400
    judged_frames: int = 50
    peak_rate: float = 6e-4
    final_rate: float = 1e-5
    judge_rate: float = 2e-4
    weight_decay: float = 0.01
    gradient_norm: float = 1.0
    average: float = 0.999
    gain_db: tuple[float, float] = (-20.0, 3.0)
    ends_share: float = 0.3
    coherence_push: tuple[tuple[int, float], ...] = ((250, 15.0), (500, 3.0))

    def rate(self, step: int) -> float:
        """Learning rate at a step: linear warm-up, then half a cosine down to the final rate."""
        if step < self.warmup_steps:
            return self.peak_rate * (step + 1) / self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps))
        return self.final_rate + (self.peak_rate - self.final_rate) * 0.5 * (1.0 + math.cos(math.pi * progress))

    def push(self, step: int) -> float:
        """Factor of the coherence term: until tokens hold phase at all, its gradient drowns in those of the others."""
        return next((factor for until, factor in self.coherence_push if step < until), 1.0)


class Trainer:
    """A model, its moving average, its judges and the optimisers, somewhere between step 0 and the schedule's end."""

    def __init__(self, work: Path, schedule: Schedule, weights: LossWeights, seed: int, device: str = "cpu") -> None:
        self.work, self.schedule, self.weights, self.seed, self.device = work, schedule, weights, seed, device
        self.speech = Speech(work, held_out=False)
        torch.manual_seed(seed)
        self.model = new_model(self.speech.batch(np.random.default_rng(seed), 8, 100, (-6.0, 0.0)).heard).to(device)
        self.judges = Judges().to(device)
        self.average: NeuCodecModel = deepcopy(self.model).eval().requires_grad_(False)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=schedule.weight_decay, fused=True
        )
        self.judge_optimiser = torch.optim.AdamW(
            self.judges.parameters(), lr=schedule.judge_rate, betas=(0.8, 0.99), weight_decay=0.0, fused=True
        )
        self.step = 0

    def advance(self) -> dict[str, float]:
        """One step; gives the terms of the loss, their sum and the norm of the gradient."""
        rng = np.random.default_rng([self.seed, self.step])
        batch = self._batch(rng)
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule.rate(self.step)
        result = reconstruct(self.model, batch.heard, mixed=self.device != "cpu")
        terms = losses(result.audio, batch.target, batch.bandwidth_hz, result.projected)
        scalars: dict[str, float] = {}
        if self.step >= self.schedule.adversarial_from:
            scalars["judging"], convincing = self._judge(rng, result.audio, batch)
            terms |= convincing
        loss = total(terms, replace(self.weights, coherence=self.weights.coherence * self.schedule.push(self.step)))
        self.optimiser.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.schedule.gradient_norm)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"gradient norm is {norm} at step {self.step}; lower the learning rate")
        self.optimiser.step()
        self._update_average()
        self.step += 1
        scalars |= {name: float(value.detach()) for name, value in terms.items()}
        return scalars | {"loss": float(loss.detach()), "gradient": float(norm)}

    def _judge(self, rng: np.random.Generator, audio: Tensor, batch: Batch) -> tuple[float, dict[str, Tensor]]:
        """Lets the judges learn from a piece of the batch, then judge it: their loss, and terms of the model's."""
        length = min(audio.shape[1], self.schedule.judged_frames * HOP_OUT // 2)
        rows = max(1, self.schedule.judged_frames * HOP_OUT // length)
        start = int(rng.integers(0, audio.shape[1] - length + 1))
        pieces = (x[:rows, start : start + length] for x in (batch.target, audio))
        recorded, said = (below_bandwidth(x, batch.bandwidth_hz[:rows]) for x in pieces)
        level = recorded.square().mean(dim=1, keepdim=True).sqrt() + JUDGED_FLOOR
        recorded, said = recorded / level, said / level
        real = self.judges(recorded)
        judging = judging_loss(real, self.judges(said.detach()))
        self.judge_optimiser.zero_grad()
        judging.backward()
        torch.nn.utils.clip_grad_norm_(self.judges.parameters(), self.schedule.gradient_norm)
        self.judge_optimiser.step()
        self.judges.requires_grad_(False)
        verdicts = self.judges(said)
        self.judges.requires_grad_(True)
        terms = {"adversarial": adversarial_loss(verdicts), "features": feature_loss(real, verdicts)}
        return float(judging.detach()), terms

    def start_from(self, folder: Path) -> None:
        """Takes the weights of an exported model instead of random ones; raises OSError where there is none."""
        exported = NeuCodecModel.from_pretrained(folder, dtype=torch.float32).state_dict()
        self.model.load_state_dict(exported)
        self.average.load_state_dict(exported)

    def save(self) -> None:
        """Writes the checkpoint so that an interruption leaves the old one or the new one."""
        content = {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "judges": self.judges.state_dict(),
            "judge_optimiser": self.judge_optimiser.state_dict(),
        }
        torch.save(content, self.work / "checkpoint.tmp")
        (self.work / "checkpoint.tmp").replace(self.work / "checkpoint.pt")

    def restore(self) -> None:
        """Goes on from the checkpoint where there is one."""
        path = self.work / "checkpoint.pt"
        if not path.exists():
            return
        content = torch.load(path, weights_only=True)
        self.model.load_state_dict(content["model"])
        self.average.load_state_dict(content["average"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.judges.load_state_dict(content["judges"])
        self.judge_optimiser.load_state_dict(content["judge_optimiser"])
        self.step = content["step"]

    def _batch(self, rng: np.random.Generator) -> Batch:
        frames = int(rng.choice(LENGTHS_FRAMES, p=LENGTH_SHARES))
        crops = max(1, self.schedule.frames_per_batch // frames)
        batch = self.speech.batch(rng, crops, frames, self.schedule.gain_db)
        if rng.random() < self.schedule.ends_share:
            batch.heard[:, frames * HOP_IN :] = 0.0  # as at the end of a recording
        return Batch(*(x.to(self.device) for x in (batch.heard, batch.target, batch.bandwidth_hz)))

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.schedule.average, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1.0 - decay)


def run(trainer: Trainer, validate_every: int) -> None:
    """Trains to the end of the schedule, with a log, checkpoints and validation on the way."""
    held_out = Speech(trainer.work, held_out=True)
    with (trainer.work / "log.jsonl").open("a", buffering=1) as log:
        sums: dict[str, float] = {}
        started = time.monotonic()
        while trainer.step < trainer.schedule.steps:
            for name, value in trainer.advance().items():
                sums[name] = sums.get(name, 0.0) + value / LOG_EVERY
            step = trainer.step
            if step % LOG_EVERY == 0:
                seconds = (time.monotonic() - started) / LOG_EVERY
                entry = {"step": step, "rate": trainer.schedule.rate(step), "step_seconds": seconds} | sums
                log.write(json.dumps({k: round(v, 6) for k, v in entry.items()}) + "\n")
                sums, started = {}, time.monotonic()
            if step % CHECKPOINT_EVERY == 0 or step == trainer.schedule.steps:
                trainer.save()
            if step % validate_every == 0 or step == trainer.schedule.steps:
                log.write(json.dumps({"step": step} | validate(trainer.average, held_out)) + "\n")
                plot(trainer.work / "log.jsonl", trainer.work / "curves.png")
                started = time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the bundled model nano.")
    parser.add_argument("--data", type=Path, required=True, help="any folder of audio, or one with MANIFEST.tsv")
    parser.add_argument("--work", type=Path, default=Path("training/run"), help="for cache, log and checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="model folder whose weights to start from, in place of random ones")
    parser.add_argument("--steps", type=int, default=Schedule.steps)
    parser.add_argument("--adversarial-from", type=int, default=Schedule.adversarial_from, help="step")
    parser.add_argument("--no-push", action="store_true", help="where the tokens of --start hold phase already")
    parser.add_argument("--peak-rate", type=float, default=Schedule.peak_rate)
    parser.add_argument("--validate-every", type=int, default=500)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-compile", action="store_true", help="do without a C++ compiler (a quarter slower)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if not arguments.no_compile:
        antialias.compile_elementwise()
    prepare(arguments.data, arguments.work)
    schedule = Schedule(arguments.steps, arguments.adversarial_from, peak_rate=arguments.peak_rate)
    if arguments.no_push:
        schedule = replace(schedule, coherence_push=())
    trainer = Trainer(arguments.work, schedule, LossWeights(), arguments.seed, arguments.device)
    if arguments.start:
        trainer.start_from(arguments.start)
    trainer.restore()
    run(trainer, arguments.validate_every)


if __name__ == "__main__":
    main()
